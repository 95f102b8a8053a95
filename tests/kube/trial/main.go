// Command trial tries the Helm chart on a real API server: what it renders is admitted, upgraded,
// rolled back and removed there, with every version of Helm that is given. It says what it tries in
// a line each and ends with 1 if anything did not hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

type settings struct {
	controlplane string
	helms        string
	chart        string
	crds         string
	node         string
	images       string
	image        string
	caller       string
	only         string
	keep         bool
}

func main() {
	var s settings
	flag.StringVar(&s.controlplane, "controlplane", "", "executable of the control plane")
	flag.StringVar(&s.helms, "helm", "", "executables of Helm, with commas between them")
	flag.StringVar(&s.chart, "chart", "helm/onnxd", "folder of the chart")
	flag.StringVar(&s.crds, "crds", "", "folders and files of custom resource definitions, with commas between them")
	flag.StringVar(&s.node, "node", "", "folder with containerd and what it needs: a node that runs pods takes the place of those that stand in")
	flag.StringVar(&s.images, "images", "", "files of images that this node has, with commas between them")
	flag.StringVar(&s.image, "image", "", "image that its pods run, as REPOSITORY:TAG")
	flag.StringVar(&s.caller, "caller", "", "executable of onnxd that calls them")
	flag.StringVar(&s.only, "only", "", "try only what matches this regular expression")
	flag.BoolVar(&s.keep, "keep", false, "leave the cluster running at the end, until interrupted")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := try(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "trial:", err)
		os.Exit(1)
	}
}

func try(ctx context.Context, s settings) error {
	only, err := regexp.Compile(s.only)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "kube-trial-")
	if err != nil {
		return err
	}
	r := &report{only: only, start: time.Now()}
	t := &trial{report: r, chart: s.chart}
	defer func() {
		if t.cluster != nil {
			t.cluster.stop()
		}
		if t.node != nil {
			t.node.remove()
		}
		if r.failed == 0 {
			_ = os.RemoveAll(folder)
		} else {
			fmt.Println("logs of the control plane:", folder)
		}
	}()

	r.always("the control plane starts", func() error {
		if t.cluster, err = startCluster(ctx, s.controlplane, folder); err != nil {
			return err
		}
		schedulers, err := t.schedulers()
		if err != nil {
			return err
		}
		if err := t.cluster.startControllers(schedulers); err != nil {
			return err
		}
		if s.node == "" {
			t.nodes, err = startNodes(ctx, t.cluster.client)
		}
		return err
	})
	if s.node != "" && r.failed == 0 {
		r.always("a node with a kubelet gets ready", func() error {
			node, err := startRealNode(ctx, t.cluster, s.node, strings.Split(s.images, ","))
			t.node = node
			return err
		})
	}
	r.always("definitions of custom resources are accepted", func() error { return t.installCRDs(ctx, strings.Split(s.crds, ",")) })
	for _, executable := range strings.Split(s.helms, ",") {
		r.always("Helm answers: "+executable, func() error {
			h, err := newHelm(ctx, executable, t.cluster)
			t.helms = append(t.helms, h)
			return err
		})
	}
	switch {
	case r.failed > 0:
	case s.node == "":
		t.all(ctx)
	default:
		for _, h := range t.helms {
			t.running(ctx, h, s.image, s.caller)
		}
	}
	if t.cluster != nil {
		if err := t.cluster.ended(); err != nil {
			r.always("the control plane is still there", func() error { return err })
		}
	}
	if s.keep && ctx.Err() == nil {
		fmt.Printf("\nexport KUBECONFIG=%s\nalias kubectl='%s kubectl'\n", t.cluster.kubeconfig, s.controlplane)
		<-ctx.Done()
	}
	return r.summary(ctx.Err())
}

// all is the list of what is tried.
func (t *trial) all(ctx context.Context) {
	values := t.values()
	t.admission(ctx)
	for _, h := range t.helms {
		t.lifecycle(ctx, h, "")
		for _, file := range values {
			t.lifecycle(ctx, h, file)
		}
		t.brokenUpgrade(ctx, h)
	}
	t.changeOfHelm(ctx)
	t.neighbours(ctx)
	t.tenant(ctx)
	t.disruption(ctx)
	t.autoscaling(ctx)
}

// values are the files of values that the chart comes with.
func (t *trial) values() []string {
	files, _ := filepath.Glob(filepath.Join(t.chart, "ci", "*.yaml"))
	return files
}

// schedulers are the names that these files give.
func (t *trial) schedulers() ([]string, error) {
	var names []string
	for _, file := range t.values() {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var values struct {
			SchedulerName string `json:"schedulerName"`
		}
		if err := yaml.Unmarshal(content, &values); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if values.SchedulerName != "" {
			names = append(names, values.SchedulerName)
		}
	}
	return names, nil
}

// report counts what held and what did not.
type report struct {
	only           *regexp.Regexp
	start          time.Time
	passed, failed int
	failures       []string
}

// step tries one thing and says how it went. It returns whether what builds on it can be tried.
func (r *report) step(what string, f func() error) bool {
	if !r.only.MatchString(what) {
		return true
	}
	return r.always(what, f)
}

func (r *report) always(what string, f func() error) bool {
	start := time.Now()
	err := f()
	took := time.Since(start).Seconds()
	if err == nil {
		r.passed++
		fmt.Printf("ok    %5.1f s  %s\n", took, what)
		return true
	}
	r.failed++
	r.failures = append(r.failures, what)
	fmt.Printf("FAIL  %5.1f s  %s\n      %s\n", took, what, strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n      "))
	return false
}

func (r *report) summary(interrupted error) error {
	fmt.Printf("\n%d held, %d did not, %.0f s\n", r.passed, r.failed, time.Since(r.start).Seconds())
	for _, failure := range r.failures {
		fmt.Println("  FAIL", failure)
	}
	switch {
	case r.failed > 0:
		return fmt.Errorf("%d did not hold", r.failed)
	case interrupted != nil:
		return errors.New("interrupted")
	}
	return nil
}
