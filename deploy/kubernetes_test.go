package deploy

import (
	"bytes"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	strict "sigs.k8s.io/yaml"

	"github.com/drover-run/drover/configs"
)

// kustomization has the keys of kustomize's file that these directories use.
type kustomization struct {
	APIVersion         string   `json:"apiVersion"`
	Kind               string   `json:"kind"`
	Resources          []string `json:"resources"`
	ConfigMapGenerator []struct {
		Name  string   `json:"name"`
		Files []string `json:"files"`
	} `json:"configMapGenerator"`
	Images []struct {
		Name    string `json:"name"`
		NewName string `json:"newName"`
		NewTag  string `json:"newTag"`
	} `json:"images"`
}

// workload is an object with Pods.
type workload struct {
	name    string
	labels  map[string]string // of its selector
	claims  []string          // volumes that it creates
	pod     corev1.PodTemplateSpec
	nothing bool // it may have no Pods
}

// objects are the objects of a directory, by kind; each was decoded strictly.
type objects struct {
	workloads []workload
	accounts  []string
	keda      map[string]*keda
}

// keda is a ScaledObject or a TriggerAuthentication. KEDA's own types depend on large parts of
// Kubernetes.
type keda struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		ScaleTargetRef struct {
			Name string `json:"name"`
		} `json:"scaleTargetRef"`
		MinReplicaCount *int `json:"minReplicaCount"`
		MaxReplicaCount int  `json:"maxReplicaCount"`
		PollingInterval int  `json:"pollingInterval"`
		CooldownPeriod  int  `json:"cooldownPeriod"`
		Triggers        []struct {
			Type              string            `json:"type"`
			Metadata          map[string]string `json:"metadata"`
			AuthenticationRef struct {
				Name string `json:"name"`
			} `json:"authenticationRef"`
		} `json:"triggers"`
		PodIdentity struct {
			Provider   string `json:"provider"`
			IdentityID string `json:"identityId"`
		} `json:"podIdentity"`
	} `json:"spec"`
}

func decode(t *testing.T, file string, text []byte, into any) {
	t.Helper()
	if err := strict.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// documents returns the documents of a file.
func documents(t *testing.T, file string) (out [][]byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	reader := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer func() { _ = reader.Close() }() // it reads from memory
	buffer := make([]byte, len(text)+1)
	for {
		n, err := reader.Read(buffer)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, bytes.Clone(buffer[:n]))
	}
}

// read decodes a kustomization and the objects in the files that it lists.
func read(t *testing.T, dir string) (kustomization, objects) {
	t.Helper()
	var k kustomization
	decode(t, "kustomization.yaml", documents(t, filepath.Join(dir, "kustomization.yaml"))[0], &k)
	o := objects{keda: make(map[string]*keda)}
	for _, name := range k.Resources {
		file := filepath.Join(dir, name)
		for _, text := range documents(t, file) {
			var kind struct{ APIVersion, Kind string }
			if err := strict.Unmarshal(text, &kind); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			switch kind.APIVersion + " " + kind.Kind {
			case "apps/v1 Deployment":
				var d appsv1.Deployment
				decode(t, file, text, &d)
				o.workloads = append(o.workloads, workload{name: d.Name, labels: d.Spec.Selector.MatchLabels, pod: d.Spec.Template, nothing: d.Spec.Replicas == nil})
			case "apps/v1 StatefulSet":
				var s appsv1.StatefulSet
				decode(t, file, text, &s)
				w := workload{name: s.Name, labels: s.Spec.Selector.MatchLabels, pod: s.Spec.Template}
				for _, c := range s.Spec.VolumeClaimTemplates {
					w.claims = append(w.claims, c.Name)
				}
				o.workloads = append(o.workloads, w)
			case "v1 ServiceAccount":
				var a corev1.ServiceAccount
				decode(t, file, text, &a)
				o.accounts = append(o.accounts, a.Name)
			case "v1 Service":
				decode(t, file, text, new(corev1.Service))
			case "keda.sh/v1alpha1 ScaledObject", "keda.sh/v1alpha1 TriggerAuthentication":
				var k keda
				decode(t, file, text, &k)
				o.keda[k.Kind] = &k
			default:
				t.Errorf("%s has a %s, which no test checks", file, kind.Kind)
			}
		}
	}
	return k, o
}

var manifests = []struct {
	dir       string
	appStop   time.Duration // the time that an app next to drover takes to stop, after drover
	secrets   string
	secretsOf []string
}{
	{dir: "standalone", secrets: "/run/secrets/drover", secretsOf: []string{"user.creds"}},
	{dir: "embedded"},
	{dir: "sidecar", appStop: 10 * time.Second},
}

func TestKubernetes(t *testing.T) {
	for _, m := range manifests {
		t.Run(m.dir, func(t *testing.T) {
			dir := filepath.Join("kubernetes", m.dir)
			k, o := read(t, dir)
			if len(k.ConfigMapGenerator) != 1 || !slices.Equal(k.ConfigMapGenerator[0].Files, []string{"drover.yaml"}) || len(o.workloads) != 1 {
				t.Fatalf("%+v, %d workloads", k.ConfigMapGenerator, len(o.workloads))
			}
			w := o.workloads[0]
			cfg := load(t, filepath.Join(dir, "drover.yaml"), m.secrets, m.secretsOf...)
			spec := w.pod.Spec
			if spec.TerminationGracePeriodSeconds == nil {
				t.Fatal("there is no terminationGracePeriodSeconds")
			}
			fits(t, cfg, time.Duration(*spec.TerminationGracePeriodSeconds)*time.Second-m.appStop)
			for key, value := range w.labels {
				if w.pod.Labels[key] != value {
					t.Errorf("it selects %s=%s, which its Pods lack", key, value)
				}
			}
			if spec.ServiceAccountName != "" && !slices.Contains(o.accounts, spec.ServiceAccountName) {
				t.Errorf("there is no account %s", spec.ServiceAccountName)
			}
			restricted(t, spec)
			probed(t, spec, cfg)
			mounted(t, spec, w.claims, k.ConfigMapGenerator[0].Name)
			for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
				known := false
				for _, i := range k.Images {
					known = known || i.Name == c.Image && i.NewTag != "" && i.NewTag != "latest"
				}
				if !known {
					t.Errorf("container %s: the kustomization does not say which image %s is", c.Name, c.Image)
				}
				if c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("container %s says not what it needs, and at most: %+v", c.Name, c.Resources)
				}
			}
		})
	}
}

// restricted checks a Pod against the Pod Security Standard of that name, and requires a read-only
// root.
func restricted(t *testing.T, spec corev1.PodSpec) {
	t.Helper()
	if spec.HostNetwork || spec.HostPID || spec.HostIPC {
		t.Error("it shares what is the host's")
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("it has a token of the API server's, and no use for it")
	}
	for _, v := range spec.Volumes {
		if v.ConfigMap == nil && v.Secret == nil && v.EmptyDir == nil && v.PersistentVolumeClaim == nil {
			t.Errorf("volume %s is of a kind that is not allowed", v.Name)
		}
	}
	p := spec.SecurityContext
	if p == nil || p.RunAsNonRoot == nil || !*p.RunAsNonRoot || p.RunAsUser == nil || *p.RunAsUser != user || p.FSGroup == nil ||
		p.SeccompProfile == nil || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the Pod's security context is %+v", p)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		s := c.SecurityContext
		switch {
		case s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation:
			t.Errorf("container %s may gain privileges", c.Name)
		case s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0:
			t.Errorf("container %s has capabilities: %+v", c.Name, s.Capabilities)
		case s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem:
			t.Errorf("container %s may write to its root", c.Name)
		case s.Privileged != nil || s.RunAsUser != nil || s.RunAsNonRoot != nil || s.SeccompProfile != nil:
			t.Errorf("container %s changes what the Pod says: %+v", c.Name, s)
		}
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				t.Errorf("container %s takes port %d of the host", c.Name, port.HostPort)
			}
		}
	}
}

// drover returns drover's container.
func drover(t *testing.T, spec corev1.PodSpec) corev1.Container {
	t.Helper()
	for _, c := range spec.Containers {
		if c.Name == "drover" {
			return c
		}
	}
	t.Fatal("no container is called drover: it must be one of those that are stopped first")
	return corev1.Container{}
}

// probed compares the probes with the endpoints in the configuration.
func probed(t *testing.T, spec corev1.PodSpec, cfg *configs.Config) {
	t.Helper()
	c := drover(t, spec)
	if len(c.Command) > 0 || !slices.Equal(c.Args, []string{"run", "/etc/drover/drover.yaml"}) {
		t.Errorf("it runs %v %v; the entry point is the image's", c.Command, c.Args)
	}
	ports := make(map[string]int32)
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path {
			t.Errorf("nothing asks for %s: %+v", path, probe)
			continue
		}
		if port := ports[probe.HTTPGet.Port.String()]; cfg.Probes.Listen != ":"+strconv.Itoa(int(port)) {
			t.Errorf("%s is asked for on port %d; drover serves it on %q", path, port, cfg.Probes.Listen)
		}
	}
	if !cfg.Probes.Metrics {
		t.Error("its metrics are not served")
	}
	if cfg.Scale.Instances.Scaled() {
		t.Error("it has instances of its own; here they are replicas")
	}
}

// mounted compares mounts with volumes.
func mounted(t *testing.T, spec corev1.PodSpec, claims []string, configMap string) {
	t.Helper()
	volumes := make(map[string]corev1.Volume)
	for _, v := range spec.Volumes {
		volumes[v.Name] = v
	}
	for _, name := range claims {
		volumes[name] = corev1.Volume{Name: name}
	}
	used := make(map[string]string) // by path
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			if _, found := volumes[m.Name]; !found {
				t.Errorf("container %s mounts %s, which is not there", c.Name, m.Name)
			}
			used[m.MountPath] = m.Name
		}
	}
	if v := volumes[used["/etc/drover"]]; v.ConfigMap == nil || v.ConfigMap.Name != configMap {
		t.Errorf("/etc/drover is %+v, not the ConfigMap %s", v, configMap)
	}
	if used[dataDir] == "" {
		t.Errorf("nothing is mounted at %s, and the root is read-only", dataDir)
	}
	for name := range volumes {
		if !slices.Contains(slices.Collect(maps.Values(used)), name) {
			t.Errorf("no container mounts %s", name)
		}
	}
}

// The app of a sidecar starts before drover and stops after it, because Kubernetes does so with
// init containers that restart.
func TestSidecarOutlivesDrover(t *testing.T) {
	_, o := read(t, "kubernetes/sidecar")
	spec := o.workloads[0].pod.Spec
	if len(spec.InitContainers) != 1 || len(spec.Containers) != 1 {
		t.Fatalf("%d and %d containers", len(spec.InitContainers), len(spec.Containers))
	}
	app := spec.InitContainers[0]
	if app.RestartPolicy == nil || *app.RestartPolicy != corev1.ContainerRestartPolicyAlways || app.StartupProbe == nil {
		t.Errorf("the app is %+v", app)
	}
	if o.workloads[0].pod.Labels["azure.workload.identity/use"] != "true" {
		t.Error("its Pods have no workload identity")
	}
}

// KEDA watches drover's sources, and may scale to no Pods.
func TestKEDA(t *testing.T) {
	_, o := read(t, "kubernetes/sidecar")
	cfg := load(t, "kubernetes/sidecar/drover.yaml", "")
	scaled, auth := o.keda["ScaledObject"], o.keda["TriggerAuthentication"]
	if scaled == nil || auth == nil || len(scaled.Spec.Triggers) != 1 {
		t.Fatalf("%+v, %+v", scaled, auth)
	}
	w, trigger := o.workloads[0], scaled.Spec.Triggers[0]
	if scaled.Spec.ScaleTargetRef.Name != w.name || !w.nothing {
		t.Errorf("it scales %s; the Deployment is %s, and must not say replicas itself", scaled.Spec.ScaleTargetRef.Name, w.name)
	}
	if scaled.Spec.MinReplicaCount == nil || *scaled.Spec.MinReplicaCount != 0 || scaled.Spec.MaxReplicaCount < 2 {
		t.Errorf("%+v", scaled.Spec)
	}
	if trigger.AuthenticationRef.Name != auth.Metadata.Name || auth.Spec.PodIdentity.Provider != "azure-workload" {
		t.Errorf("%+v, %+v", trigger.AuthenticationRef, auth.Spec.PodIdentity)
	}
	source := cfg.Functions["orders"].Trigger.ServiceBus
	namespace := cfg.Connections[source.Connection].Namespace
	want := map[string]string{
		"namespace": "contoso", "topicName": source.Topic, "subscriptionName": strings.Join(source.Subscription, ","), "messageCount": trigger.Metadata["messageCount"],
	}
	if trigger.Type != "azure-servicebus" || !maps.Equal(trigger.Metadata, want) || namespace != want["namespace"]+".servicebus.windows.net" {
		t.Errorf("KEDA's trigger is %s %v, want %v in %s", trigger.Type, trigger.Metadata, want, namespace)
	}
	if n, err := strconv.Atoi(trigger.Metadata["messageCount"]); err != nil || n < 64 {
		t.Errorf("messageCount is %q: what one replica has in flight is more", trigger.Metadata["messageCount"])
	}
}

func TestPodMonitor(t *testing.T) {
	var monitor struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			Selector struct {
				MatchExpressions []struct {
					Key, Operator string
					Values        []string
				} `json:"matchExpressions"`
			} `json:"selector"`
			PodMetricsEndpoints []struct{ Port, Path, Interval string } `json:"podMetricsEndpoints"`
		} `json:"spec"`
	}
	decode(t, "podmonitor.yaml", documents(t, "kubernetes/podmonitor.yaml")[0], &monitor)
	by := monitor.Spec.Selector.MatchExpressions
	at := monitor.Spec.PodMetricsEndpoints
	if len(by) != 1 || by[0].Operator != "In" || len(at) != 1 || at[0].Port != "probes" || at[0].Path != "/metrics" {
		t.Fatalf("%+v", monitor.Spec)
	}
	for _, m := range manifests {
		_, o := read(t, filepath.Join("kubernetes", m.dir))
		if name := o.workloads[0].pod.Labels[by[0].Key]; !slices.Contains(by[0].Values, name) {
			t.Errorf("it does not see %s", name)
		}
	}
}

// kustomize builds valid objects from each directory.
func TestKustomize(t *testing.T) {
	for _, m := range manifests {
		made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join("kubernetes", m.dir))
		if err != nil {
			t.Errorf("%s: %v", m.dir, err)
			continue
		}
		out, err := made.AsYaml()
		if err != nil || !bytes.Contains(out, []byte("kind: ConfigMap")) || !bytes.Contains(out, []byte("image: registry.example.com/")) {
			t.Errorf("%s: %v\n%s", m.dir, err, out)
		}
	}
}
