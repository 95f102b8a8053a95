package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
)

// cluster is a control plane on loopback whose keys and data live in one temporary folder.
type cluster struct {
	executable string
	folder     string
	address    string
	version    string
	kubeconfig string
	rest       *rest.Config
	client     kubernetes.Interface
	dynamic    dynamic.Interface
	parts      []*part
}

// part is one process of the control plane.
type part struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
}

// Who may call, each by a token of its own that is made anew for every run.
var users = []struct{ name, group string }{
	{"admin", "system:masters"},
	{"system:kube-controller-manager", ""},
	{"system:kube-scheduler", ""},
	{"system:kube-proxy", ""},
	{"system:node:" + realNodeName, "system:nodes"},
	// A person who was given one namespace and nothing else.
	{"tenant", ""},
}

// startCluster returns when the API server answers that it is ready.
func startCluster(ctx context.Context, executable, folder string) (*cluster, error) {
	c := &cluster{executable: executable, folder: folder}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	c.address = "https://" + listener.Addr().String()
	if err := c.writeKeys(); err != nil {
		return nil, err
	}
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()

	err = c.start([]*os.File{socket}, "apiserver", folder,
		"--tls-cert-file="+c.path("server.crt"), "--tls-private-key-file="+c.path("server.key"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+c.path("accounts.key"),
		"--service-account-signing-key-file="+c.path("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		// No name server knows the names of nodes.
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file="+c.path("front-proxy.crt"),
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+c.path("front-proxy.crt"), "--proxy-client-key-file="+c.path("front-proxy.key"),
	)
	if err != nil {
		return c, err
	}
	c.kubeconfig = c.path("admin.kubeconfig")
	if c.rest, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		return c, err
	}
	// The trial looks often; the limits of a client are for clients of somebody else's cluster.
	c.rest.QPS, c.rest.Burst = 500, 1000
	c.rest.WarningHandler = rest.NoWarnings{}
	if c.client, err = kubernetes.NewForConfig(c.rest); err != nil {
		return c, err
	}
	if c.dynamic, err = dynamic.NewForConfig(c.rest); err != nil {
		return c, err
	}
	if err := c.untilReady(ctx); err != nil {
		return c, err
	}
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return c, err
	}
	c.version = version.GitVersion
	return c, nil
}

func (c *cluster) untilReady(ctx context.Context) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 5*time.Minute, true, func(ctx context.Context) (bool, error) {
		if err := c.ended(); err != nil {
			return false, err
		}
		_, last = c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return last == nil, nil
	})
	if err != nil && last != nil {
		return fmt.Errorf("%w; the API server says %w", err, last)
	}
	return err
}

// startControllers starts what acts on the objects that the API server only keeps.
// Pods may name a scheduler of their own; one process plays all of them.
func (c *cluster) startControllers(schedulers []string) error {
	err := c.start(nil, "controller-manager",
		"--kubeconfig="+c.path("system:kube-controller-manager.kubeconfig"),
		"--service-account-private-key-file="+c.path("accounts.key"), "--root-ca-file="+c.path("server.crt"),
		"--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0",
		// Nodes here have no kubelet that would report every few seconds.
		"--node-monitor-grace-period=24h",
		"--horizontal-pod-autoscaler-sync-period=1s",
		"--horizontal-pod-autoscaler-downscale-stabilization=0s",
		"--horizontal-pod-autoscaler-initial-readiness-delay=0s",
		"--pvclaimbinder-sync-period=1s",
	)
	if err != nil {
		return err
	}
	config := fmt.Sprintf("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"+
		"clientConnection: {kubeconfig: %q}\nleaderElection: {leaderElect: false}\nprofiles:\n", c.path("system:kube-scheduler.kubeconfig"))
	for _, name := range append([]string{corev1.DefaultSchedulerName}, schedulers...) {
		config += fmt.Sprintf("- schedulerName: %q\n", name)
	}
	if err := os.WriteFile(c.path("scheduler.yaml"), []byte(config), 0o600); err != nil {
		return err
	}
	return c.start(nil, "scheduler", "--config="+c.path("scheduler.yaml"), "--secure-port=0")
}

func (c *cluster) path(name string) string { return filepath.Join(c.folder, name) }

// start starts a part of the control plane.
func (c *cluster) start(files []*os.File, name string, args ...string) error {
	return c.startProgram(c.executable, files, name, append([]string{name}, args...)...)
}

func (c *cluster) startProgram(executable string, files []*os.File, name string, args ...string) error {
	log, err := os.Create(c.path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(executable, args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	// No proxy and no kubeconfig of the person who runs this has a say.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.folder}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &part{name: name, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	c.parts = append(c.parts, p)
	return nil
}

// ended tells of a part that is no longer there.
func (c *cluster) ended() error {
	for _, p := range c.parts {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended (%s); its last words:\n%s", p.name, p.cmd.ProcessState, lastLines(c.path(p.name+".log"), 12))
		default:
		}
	}
	return nil
}

// stop ends the parts in the opposite order of their start.
func (c *cluster) stop() {
	for i := len(c.parts) - 1; i >= 0; i-- {
		p := c.parts[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(10 * time.Second):
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
}

func (c *cluster) writeKeys() error {
	certificate, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"})
	if err != nil {
		return err
	}
	proxyCertificate, proxyKey, err := certutil.GenerateSelfSignedCertKey("front-proxy", nil, nil)
	if err != nil {
		return err
	}
	accounts, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(accounts)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"server.crt": certificate, "server.key": key,
		"front-proxy.crt": proxyCertificate, "front-proxy.key": proxyKey,
		"accounts.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
	var tokens string
	for i, user := range users {
		random := make([]byte, 16)
		if _, err := rand.Read(random); err != nil {
			return err
		}
		token := hex.EncodeToString(random)
		tokens += fmt.Sprintf("%s,%s,%d", token, user.name, i)
		if user.group != "" {
			tokens += "," + user.group
		}
		tokens += "\n"
		if err := c.writeKubeconfig(user.name, token, certificate); err != nil {
			return err
		}
	}
	files["tokens.csv"] = []byte(tokens)
	for name, content := range files {
		if err := os.WriteFile(c.path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) writeKubeconfig(user, token string, authority []byte) error {
	config := clientcmdapi.NewConfig()
	config.Clusters["trial"] = &clientcmdapi.Cluster{Server: c.address, CertificateAuthorityData: authority}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["trial"] = &clientcmdapi.Context{Cluster: "trial", AuthInfo: user}
	config.CurrentContext = "trial"
	return clientcmd.WriteToFile(*config, c.path(user+".kubeconfig"))
}

// lastLines returns the end of a log, for a message.
func lastLines(path string, count int) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	end := len(content)
	start := end
	for lines := 0; start > 0 && lines <= count; start-- {
		if content[start-1] == '\n' {
			lines++
		}
	}
	return string(content[start:end])
}
