// Package testserver takes the place of k8s.io/apiserver's package of that name, which starts an etcd in the process of the tests: it starts a
// quorate-node instead, so that the storage tests of Kubernetes run on that.
package testserver

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/server/v3/embed"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
)

// NODE is the program that is tested.
const NODE = "QUORATE_NODE"

// NewTestConfig returns what tests change before they call RunEtcd. The folder, the client's address and the interval of progress are looked at, and
// nothing else of it.
func NewTestConfig(t testing.TB) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	client := url.URL{Scheme: "http", Host: freeAddress(t)}
	cfg.ListenClientUrls = []url.URL{client}
	cfg.AdvertiseClientUrls = []url.URL{client}
	return cfg
}

// RunEtcd starts a node, which ends with the test, and returns a client of it.
func RunEtcd(t testing.TB, cfg *embed.Config) *kubernetes.Client {
	t.Helper()
	if cfg == nil {
		cfg = NewTestConfig(t)
	}
	address := cfg.ListenClientUrls[0].Host
	arguments := []string{
		"--data-dir", filepath.Join(cfg.Dir, "node"), "--name", "node", "--bootstrap",
		"--listen-client", address, "--listen-peer", freeAddress(t), "--listen-http", freeAddress(t), "--stop-delay", "0",
	}
	if interval := cfg.WatchProgressNotifyInterval; interval > 0 {
		arguments = append(arguments, "--watch-progress-notify-interval", fmt.Sprintf("%dms", interval.Milliseconds()))
	}
	start(t, filepath.Join(cfg.Dir, "log"), arguments)
	client, err := kubernetes.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	waitUntilItServes(t, client)
	recorder := storagetesting.NewKubernetesRecorder(client.Kubernetes)
	client.KV = storagetesting.NewKVRecorder(client.KV, recorder)
	client.Kubernetes = recorder
	return client
}

func start(t testing.TB, log string, arguments []string) {
	program := os.Getenv(NODE)
	if program == "" {
		t.Fatalf("%s names no program: say which quorate-node is to be tested", NODE)
	}
	output, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command(program, arguments...)
	node.Stdout, node.Stderr = output, output
	// A test that is killed cleans nothing up.
	node.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- node.Wait() }()
	t.Cleanup(func() {
		select {
		case err := <-ended:
			t.Errorf("the node has ended before the test: %v", err)
		default:
			node.Process.Kill()
			<-ended
		}
		if t.Failed() {
			said, _ := os.ReadFile(log)
			t.Logf("the node said:\n%s", said)
		}
	})
}

func waitUntilItServes(t testing.TB, client *kubernetes.Client) {
	end := time.Now().Add(time.Minute)
	for {
		_, err := client.Client.Get(t.Context(), "?")
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the node does not come up: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// freeAddress returns an address of loopback that nobody listens at.
func freeAddress(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
