package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// helm is one version of Helm that acts on the cluster.
type helm struct {
	executable string
	major      string // "3", "4"
	cluster    *cluster
}

func newHelm(ctx context.Context, executable string, c *cluster) (*helm, error) {
	h := &helm{executable: executable, cluster: c}
	version, err := h.run(ctx, "admin", "version", "--template", "{{.Version}}")
	if err != nil {
		return h, err
	}
	h.major = strings.TrimPrefix(strings.SplitN(version, ".", 2)[0], "v")
	return h, nil
}

func (h *helm) String() string { return "Helm " + h.major }

// run runs Helm as a user and returns what it printed.
func (h *helm) run(ctx context.Context, user string, args ...string) (string, error) {
	return runCommand(ctx, h.cluster, user, h.executable, args...)
}

// kubectl runs kubectl as a user and returns what it printed.
func (c *cluster) kubectl(ctx context.Context, user string, args ...string) (string, error) {
	return runCommand(ctx, c, user, c.executable, append([]string{"kubectl"}, args...)...)
}

// undo is the flag of an upgrade that goes back by itself when it does not get ready.
func (h *helm) undo() string {
	if h.major == "3" {
		return "--atomic"
	}
	return "--rollback-on-failure"
}

func runCommand(ctx context.Context, c *cluster, user, executable string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, executable, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + c.folder, "KUBECONFIG=" + c.path(user+".kubeconfig"),
		"HELM_CACHE_HOME=" + c.path("helm/cache"), "HELM_CONFIG_HOME=" + c.path("helm/config"),
		"HELM_DATA_HOME=" + c.path("helm/data"),
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		shown := args
		if args[0] == "kubectl" {
			shown = args[1:]
		}
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(shown, " "), err, strings.TrimSpace(stderr.String()+"\n"+stdout.String()))
	}
	// Both tools put what the API server warns of on the error stream.
	for _, line := range strings.Split(stderr.String(), "\n") {
		if strings.HasPrefix(line, "Warning:") || strings.Contains(line, "violate PodSecurity") {
			return stdout.String(), errors.New(line)
		}
	}
	return stdout.String(), nil
}
