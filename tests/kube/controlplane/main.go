// Command controlplane is a Kubernetes control plane in one executable: the API server with its
// etcd inside, the controller manager, the scheduler, and kubectl to speak to them. The first
// argument says which of them to be, the rest are that program's own flags.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = "usage: controlplane apiserver DIR|controller-manager|scheduler|kubectl [flags]"

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	part := os.Args[1]
	os.Args = os.Args[1:]
	switch part {
	case "apiserver":
		if err := serve(os.Args[1:]); err != nil {
			fail(err)
		}
	case "controller-manager":
		run(controllermanager.NewControllerManagerCommand())
	case "scheduler":
		run(scheduler.NewSchedulerCommand())
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	default:
		fail(usage)
	}
}

func run(command *cobra.Command) { os.Exit(cli.Run(command)) }

func fail(why any) {
	fmt.Fprintln(os.Stderr, "controlplane:", why)
	os.Exit(2)
}
