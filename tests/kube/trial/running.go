package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// running tries what only a kubelet can show: pods of the chart run, answer, end and start again.
func (t *trial) running(ctx context.Context, h *helm, image, caller string) {
	r := &runningRelease{t: t, helm: h, namespace: "running-" + h.major, caller: caller}
	repository, tag, _ := strings.Cut(image, ":")
	r.values = []string{
		"--namespace", r.namespace, "--set", "image.repository=" + repository + ",image.tag=" + tag + ",image.pullPolicy=Never",
		// The node is smaller than those that the default values are for.
		"--set", "resources.requests.cpu=100m", "--wait", "--timeout=120s",
	}
	label := fmt.Sprintf("%s, on a kubelet: ", h)
	steps := []struct {
		what string
		try  func(context.Context) error
	}{
		{"install ends when the server is ready, in a restricted namespace", r.install},
		{"helm test gets an answer from the model", r.test},
		{"a call from outside of the pods is answered", r.call},
		{"a server that dies is started again and gets ready", r.die},
		{"a rollout under calls loses none", r.rollOut},
		{"uninstall ends the server within its grace period", r.uninstall},
	}
	for _, step := range steps {
		if !t.step(label+step.what, func() error { return step.try(ctx) }) {
			return
		}
	}
}

// runningRelease is the chart on a node that runs pods.
type runningRelease struct {
	t         *trial
	helm      *helm
	namespace string
	caller    string
	values    []string
	address   string
}

func (r *runningRelease) install(ctx context.Context) error {
	if err := r.t.namespace(ctx, r.namespace); err != nil {
		return err
	}
	if _, err := r.helm.run(ctx, "admin", append([]string{"install", "onnxd", r.t.chart}, r.values...)...); err != nil {
		events, _ := r.t.cluster.kubectl(ctx, "admin", "get", "events", "--namespace", r.namespace, "--sort-by=.lastTimestamp")
		logs, _ := r.t.cluster.kubectl(ctx, "admin", "logs", "--namespace", r.namespace, "--selector=app.kubernetes.io/name=onnxd", "--tail=20")
		return fmt.Errorf("%w\n%s\n%s", err, events, logs)
	}
	service, err := r.t.cluster.client.CoreV1().Services(r.namespace).Get(ctx, "onnxd", metav1.GetOptions{})
	if err != nil {
		return err
	}
	r.address = fmt.Sprintf("%s:%d", service.Spec.ClusterIP, service.Spec.Ports[0].Port)
	return nil
}

func (r *runningRelease) test(ctx context.Context) error {
	out, err := r.helm.run(ctx, "admin", "test", "onnxd", "--namespace", r.namespace, "--logs", "--timeout=60s")
	if err != nil {
		return err
	}
	if !strings.Contains(out, "target_label") {
		return errors.New("there is no answer in: " + out)
	}
	return nil
}

// call asks the service at its address for a prediction.
func (r *runningRelease) call(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, r.caller, "infer", "magika", "--addr="+r.address, "--timeout-ms=10000", "--input=bytes=256").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (r *runningRelease) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := r.t.cluster.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func (r *runningRelease) die(ctx context.Context) error {
	process, err := r.t.node.process("onnxd")
	if err != nil {
		return err
	}
	if err := syscall.Kill(process, syscall.SIGKILL); err != nil {
		return err
	}
	return eventually(ctx, func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			for _, container := range pod.Status.ContainerStatuses {
				if container.RestartCount > 0 && container.Ready {
					return r.call(ctx)
				}
			}
		}
		return errors.New("no container was started again and is ready")
	})
}

func (r *runningRelease) rollOut(ctx context.Context) error {
	before, err := r.pods(ctx)
	if err != nil {
		return err
	}
	calling, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		calls int
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		for calls := 0; ; calls++ {
			if calling.Err() != nil {
				ended <- outcome{calls, nil}
				return
			}
			// A call that has begun is waited for.
			if err := r.call(ctx); err != nil {
				ended <- outcome{calls, err}
				return
			}
		}
	}()
	_, err = r.helm.run(ctx, "admin", append([]string{"upgrade", "onnxd", r.t.chart, "--set", "server.log=debug"}, r.values...)...)
	if err != nil {
		return err
	}
	err = eventually(ctx, func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			for _, old := range before {
				if pod.UID == old.UID {
					return fmt.Errorf("%s is still there", pod.Name)
				}
			}
		}
		return nil
	})
	stop()
	calls := <-ended
	if err != nil || calls.err != nil {
		return errors.Join(err, calls.err)
	}
	fmt.Printf("      %d calls, one after the other\n", calls.calls)
	if calls.calls == 0 {
		return errors.New("there was no call")
	}
	return nil
}

func (r *runningRelease) uninstall(ctx context.Context) error {
	before, err := r.pods(ctx)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return errors.New("there is no pod")
	}
	// Who is not gone by then is killed.
	grace := time.Duration(*before[0].Spec.TerminationGracePeriodSeconds) * time.Second
	begun := time.Now()
	if _, err := r.helm.run(ctx, "admin", "uninstall", "onnxd", "--namespace", r.namespace, "--wait", "--timeout=120s"); err != nil {
		return err
	}
	err = eventually(ctx, func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods are left", len(pods))
		}
		return err
	})
	if took := time.Since(begun); err == nil && took >= grace {
		err = fmt.Errorf("it took %s of %s", took, grace)
	}
	return err
}
