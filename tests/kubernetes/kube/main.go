// Command kube is all of Kubernetes in one program, which acts as the component by whose name it is called:
// one link step instead of six, and one file in the page cache.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var components = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	// The context without signals: the handler for signals may be set up once in a process, and the API server's
	// command does it as well.
	"kubelet": func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	if command, known := components[name]; known {
		os.Exit(run(name, command()))
	}
	names := make([]string, 0, len(components))
	for component := range components {
		names = append(names, component)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "%s: call this program by the name of a component, through a link: %v\n", name, names)
	os.Exit(2)
}

// run ends kubectl as kubectl's own program does, which prints an error without a usage text.
func run(name string, command *cobra.Command) int {
	if name != "kubectl" {
		return cli.Run(command)
	}
	kubectlutil.CheckErr(cli.RunNoErrOutput(command))
	return 0
}
