//! What a client sees of changes of the membership: the same steps on a real etcd of one member and on a node of ours, and the same story.
//!
//! It ends where they differ: a voter that has been added and has not come is a part of etcd's quorum, which is lost with it, and none of ours.

use std::time::{Duration, Instant};

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::cluster_client::ClusterClient;
use quorate_api::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_tests::ports;
use tokio::runtime::Builder;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use crate::quota::{start_etcd, start_node};

const START: Duration = Duration::from_mins(1);

/// No member has this ID.
const NOBODY: u64 = 7;

#[test]
fn changes_of_the_membership_tell_the_same_story_as_etcds() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let others = [0; 3].map(|_| format!("http://{}", ports::free()));
    let [theirs, ours] = [start_etcd(&directory), start_node(&directory)].map(|(_process, client)| {
        let channel = {
            let _context = runtime.enter();
            Endpoint::from_shared(client).expect("a URL").connect_lazy()
        };
        runtime.block_on(story(channel, &others))
    });
    println!("{}", theirs.join("\n"));
    assert_eq!(theirs, ours);
}

/// What happens, a line for each step.
async fn story(channel: Channel, others: &[String; 3]) -> Vec<String> {
    wait(channel.clone()).await;
    let mut client = Client { cluster: ClusterClient::new(channel), own: String::new(), told: Vec::new() };
    let own = client.founder().await;
    let [one, two, three] = others;
    for urls in [vec![], vec!["127.0.0.1:1"], vec!["http://127.0.0.1"], vec!["http://127.0.0.1:1/path"]] {
        client.add(urls, false).await;
    }
    let own_url = client.own.clone();
    client.add(vec![&own_url], false).await;
    for id in [NOBODY, own] {
        client.promote(id).await;
        client.remove(id).await;
    }
    client.update(NOBODY, one).await;
    let learner = client.add(vec![one], true).await.expect("a learner is added");
    client.add(vec![two], true).await;
    // (Its URL once more: etcd would say that the ID exists, or that the URL does, as the second goes on in which it was added.)
    client.promote(learner).await;
    client.update(learner, &own_url).await;
    client.update(learner, two).await;
    client.list().await;
    client.remove(learner).await;
    client.remove(learner).await;
    client.promote(learner).await;
    // From here on etcd has no quorum any more.
    client.add(vec![three], false).await.expect("a second voter is added");
    client.add(vec![one], false).await;
    client.add(vec![one], true).await;
    client.remove(own).await;
    client.told
}

async fn wait(channel: Channel) {
    let mut maintenance = MaintenanceClient::new(channel);
    let deadline = Instant::now() + START;
    loop {
        match maintenance.status(pb::StatusRequest {}).await {
            Ok(status) if status.get_ref().leader != 0 => return,
            other => assert!(Instant::now() < deadline, "it does not come up: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Client {
    cluster: ClusterClient<Channel>,
    /// The peer URL of the one that is there.
    own: String,
    told: Vec<String>,
}

impl Client {
    /// The ID of the one that is there.
    async fn founder(&mut self) -> u64 {
        let list = self.cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
        let list = list.expect("a list").into_inner();
        self.own.clone_from(&list.members[0].peer_ur_ls[0]);
        self.list().await;
        list.members[0].id
    }

    fn tell(&mut self, what: &str, answer: Result<(Option<pb::ResponseHeader>, Vec<pb::Member>), Status>) {
        let line = match answer {
            Ok((header, members)) => {
                assert!(header.is_some_and(|header| header.revision == 0 && header.raft_term > 0));
                assert!(members.is_sorted_by_key(|member| member.id), "{members:?}");
                let mut shown: Vec<_> = members.iter().map(|member| self.show(member)).collect();
                shown.sort();
                shown.join(", ")
            }
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        };
        self.told.push(format!("{what}: {line}"));
    }

    /// A member without its ID, and without what only the one that is there says of itself.
    fn show(&self, member: &pb::Member) -> String {
        let is_own = member.peer_ur_ls == [self.own.as_str()];
        let urls = if is_own { "its own".to_owned() } else { format!("{:?}", member.peer_ur_ls) };
        let (named, clients) = (!member.name.is_empty(), member.client_ur_ls.len());
        format!("[{urls} named {named} clients {clients} learner {}]", member.is_learner)
    }

    async fn list(&mut self) {
        let answer = self.cluster.member_list(pb::MemberListRequest { linearizable: true }).await;
        let answer = answer.map(Response::into_inner).map(|answer| (answer.header, answer.members));
        self.tell("list", answer);
    }

    async fn add(&mut self, urls: Vec<impl AsRef<str>>, is_learner: bool) -> Option<u64> {
        let peer_ur_ls: Vec<String> = urls.iter().map(|url| url.as_ref().to_owned()).collect();
        let what = format!("add {} learner {is_learner}", self.name(&peer_ur_ls));
        let request = pb::MemberAddRequest { peer_ur_ls, is_learner };
        let answer = self.cluster.member_add(request).await.map(Response::into_inner);
        let member = answer.as_ref().ok().and_then(|answer| answer.member.clone());
        if let Some(member) = &member {
            let shown = self.show(member);
            self.told.push(format!("added: {shown}"));
        }
        self.tell(&what, answer.map(|answer| (answer.header, answer.members)));
        member.map(|member| member.id)
    }

    fn name(&self, urls: &[String]) -> String {
        if urls == [self.own.as_str()] { "its own".to_owned() } else { format!("{urls:?}") }
    }

    async fn remove(&mut self, id: u64) {
        let answer = self.cluster.member_remove(pb::MemberRemoveRequest { id }).await;
        let answer = answer.map(Response::into_inner).map(|answer| (answer.header, answer.members));
        self.tell("remove", answer);
    }

    async fn update(&mut self, id: u64, url: &str) {
        let peer_ur_ls = vec![url.to_owned()];
        let what = format!("update {}", self.name(&peer_ur_ls));
        let answer = self.cluster.member_update(pb::MemberUpdateRequest { id, peer_ur_ls }).await;
        let answer = answer.map(Response::into_inner).map(|answer| (answer.header, answer.members));
        self.tell(&what, answer);
    }

    async fn promote(&mut self, id: u64) {
        let answer = self.cluster.member_promote(pb::MemberPromoteRequest { id }).await;
        let answer = answer.map(Response::into_inner).map(|answer| (answer.header, answer.members));
        self.tell("promote", answer);
    }
}
