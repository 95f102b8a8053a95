// Command controlplane is a Kubernetes control plane in one executable: the API server with its
// etcd inside, the controller manager, the scheduler, and kubectl to speak to them. The first
// argument says which of them to be, the rest are that program's own flags.
package main

import (
	"fmt"
	"os"

	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// parts are the programs by name; each file adds its own.
var parts = map[string]func(){}

func main() {
	if len(os.Args) < 2 || parts[os.Args[1]] == nil {
		fail("usage: controlplane apiserver DIR|controller-manager|scheduler|kubectl [flags]")
	}
	os.Args = os.Args[1:]
	parts[os.Args[0]]()
}

func fail(why any) {
	fmt.Fprintln(os.Stderr, "controlplane:", why)
	os.Exit(2)
}
