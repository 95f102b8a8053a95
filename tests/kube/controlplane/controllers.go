package main

import (
	"os"

	"k8s.io/component-base/cli"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func init() {
	parts["controller-manager"] = func() { os.Exit(cli.Run(controllermanager.NewControllerManagerCommand())) }
	parts["scheduler"] = func() { os.Exit(cli.Run(scheduler.NewSchedulerCommand())) }
}
