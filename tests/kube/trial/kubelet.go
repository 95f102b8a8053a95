package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Addresses inside of the trial's own network.
const (
	nodeAddress  = "172.31.0.1"
	podNetwork   = "10.244.0.0/16"
	realNodeName = "node"
)

// realNode is one node with a kubelet, containerd, kube-proxy and a name server: pods that the
// scheduler places on it run. All of it lives in the network and the mounts that the trial was
// started in, and in one temporary folder.
type realNode struct {
	cluster *cluster
	runtime string // folder of executables
	cgroup  string
}

// startRealNode returns when the node says that it is ready.
func startRealNode(ctx context.Context, c *cluster, runtime string, images []string) (*realNode, error) {
	n := &realNode{cluster: c, runtime: runtime, cgroup: filepath.Base(c.folder)}
	for _, step := range []func(context.Context) error{
		n.prepare, n.startContainerd, func(ctx context.Context) error { return n.load(ctx, images) },
		n.startKubelet, n.startProxy, n.startNames, n.untilReady,
	} {
		if err := step(ctx); err != nil {
			return n, err
		}
	}
	return n, nil
}

// prepare makes the network and the folders that programs expect at fixed places.
func (n *realNode) prepare(ctx context.Context) error {
	commands := [][]string{
		{"ip", "link", "add", "node0", "type", "veth", "peer", "name", "node1"},
		{"ip", "address", "add", nodeAddress + "/24", "dev", "node0"},
		{"ip", "link", "set", "node0", "up"},
		{"ip", "link", "set", "node1", "up"},
		// What goes nowhere else ends here, as it would at the edge of a cluster without a way out.
		{"ip", "route", "add", "default", "via", "172.31.0.2", "dev", "node0", "onlink"},
		{"mount", "--make-rshared", "/"},
	}
	for _, folder := range []string{
		"/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods",
	} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		commands = append(commands, []string{"mount", "-t", "tmpfs", "trial", folder})
	}
	for _, each := range commands {
		if err := command(ctx, each...); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	if err := n.keepSettings(ctx); err != nil {
		return err
	}
	for _, group := range n.groups() {
		if err := os.MkdirAll(group, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// keepSettings shows the kubelet the settings of the kernel that it would otherwise make for the whole
// machine.
func (n *realNode) keepSettings(ctx context.Context) error {
	for path, content := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		shown := n.cluster.path(strings.ReplaceAll(path, "/", "-"))
		if err := os.WriteFile(shown, []byte(content+"\n"), 0o644); err != nil {
			return err
		}
		if err := command(ctx, "mount", "--bind", shown, "/proc/sys/"+path); err != nil {
			return err
		}
	}
	return nil
}

func (n *realNode) startContainerd(ctx context.Context) error {
	c := n.cluster
	for _, folder := range []string{"containerd", "containerd-state", "cni"} {
		if err := os.MkdirAll(c.path(folder), 0o755); err != nil {
			return err
		}
	}
	network := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": false,
		"ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}`,
		c.path("addresses"), podNetwork)
	if err := os.WriteFile(c.path("cni/pods.conflist"), []byte(network), 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(`version = 3
root = %q
state = %q
[grpc]
address = %q
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'native'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'localhost/pause:trial'
[plugins.'io.containerd.cri.v1.runtime']
# A container that builds may not say who is spared when memory is short.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [%q]
conf_dir = %q
`, c.path("containerd"), c.path("containerd-state"), n.socket(), n.runtime, c.path("cni"))
	if err := os.WriteFile(c.path("containerd.toml"), []byte(config), 0o600); err != nil {
		return err
	}
	if err := c.startProgram(filepath.Join(n.runtime, "containerd"), nil, "containerd", "--config="+c.path("containerd.toml")); err != nil {
		return err
	}
	return eventually(ctx, func(ctx context.Context) error { return n.ctr(ctx, "version") })
}

func command(ctx context.Context, words ...string) error {
	out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
	}
	return nil
}

func (n *realNode) socket() string { return n.cluster.path("containerd.sock") }

func (n *realNode) ctr(ctx context.Context, args ...string) error {
	return command(ctx, append([]string{filepath.Join(n.runtime, "ctr"), "--address", n.socket(), "--namespace", "k8s.io"}, args...)...)
}

// load brings images in from files, as no registry is there. (Not through the transfer service, which
// knows only the snapshotter of its settings.)
func (n *realNode) load(ctx context.Context, images []string) error {
	for _, image := range images {
		if err := n.ctr(ctx, "images", "import", "--local", "--snapshotter", "native", image); err != nil {
			return err
		}
	}
	return nil
}

func (n *realNode) startKubelet(context.Context) error {
	c := n.cluster
	config := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
cgroupRoot: /%s
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://%s
clusterDNS: [%s]
clusterDomain: cluster.local
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi, imagefs.available: 1Mi, nodefs.inodesFree: "1"}
volumePluginDir: %s
`, n.cgroup, n.socket(), nodeAddress, c.path("plugins"))
	if err := os.WriteFile(c.path("kubelet.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	return c.start(nil, "kubelet", "--config="+c.path("kubelet.yaml"), "--root-dir="+c.path("kubelet"),
		"--kubeconfig="+c.path("system:node:"+realNodeName+".kubeconfig"),
		"--hostname-override="+realNodeName, "--node-ip="+nodeAddress, "--cert-dir="+c.path("kubelet-keys"),
		"--node-labels="+corev1.LabelTopologyZone+"=a")
}

// startProxy makes the addresses of services lead to their pods.
func (n *realNode) startProxy(context.Context) error {
	c := n.cluster
	return c.start(nil, "proxy", "--kubeconfig="+c.path("system:kube-proxy.kubeconfig"), "--proxy-mode=iptables",
		"--cluster-cidr="+podNetwork, "--hostname-override="+realNodeName, "--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
}

// startNames answers for the names of services.
func (n *realNode) startNames(context.Context) error {
	c := n.cluster
	config := fmt.Sprintf(".:53 {\n bind %s\n errors\n kubernetes cluster.local {\n  kubeconfig %s\n }\n}\n",
		nodeAddress, c.path("admin.kubeconfig"))
	if err := os.WriteFile(c.path("Corefile"), []byte(config), 0o600); err != nil {
		return err
	}
	return c.startProgram(filepath.Join(n.runtime, "names"), nil, "names", "-conf="+c.path("Corefile"))
}

func (n *realNode) untilReady(ctx context.Context) error {
	return eventually(ctx, func(ctx context.Context) error {
		if err := n.cluster.ended(); err != nil {
			return err
		}
		node, err := n.cluster.client.CoreV1().Nodes().Get(ctx, realNodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return errors.New("the node is not ready: " + fmt.Sprint(node.Status.Conditions))
	})
}

// process is the one with this name in the pods of this node.
func (n *realNode) process(name string) (int, error) {
	var found []int
	for id, of := range n.processes() {
		if of == name {
			found = append(found, id)
		}
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%d processes in pods are called %s", len(found), name)
	}
	return found[0], nil
}

// processes are those in pods, with their names.
func (n *realNode) processes() map[int]string {
	all := map[int]string{}
	for _, folder := range n.groups() {
		_ = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil // groups come and go
			}
			content, _ := os.ReadFile(path)
			for _, line := range strings.Fields(string(content)) {
				name, err := os.ReadFile("/proc/" + line + "/comm")
				if id, _ := strconv.Atoi(line); err == nil && id > 0 {
					all[id] = strings.TrimSpace(string(name))
				}
			}
			return nil
		})
	}
	return all
}

// groups are the control groups that hold the pods: one, or with the first version of control groups
// one for each controller.
func (n *realNode) groups() []string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{filepath.Join(root, n.cgroup)}
	}
	files, _ := filepath.Glob(filepath.Join(root, "*", "cgroup.procs"))
	for i, file := range files {
		files[i] = filepath.Join(filepath.Dir(file), n.cgroup)
	}
	return files
}

// remove ends what pods are left and takes away what outlives processes.
func (n *realNode) remove() {
	for id := range n.processes() {
		_ = syscall.Kill(id, syscall.SIGKILL)
	}
	for _, folder := range n.groups() {
		// Groups go from the inside out, once their last process has.
		for range 50 {
			if out, _ := exec.Command("find", folder, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").CombinedOutput(); len(out) == 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}
