package configs

import (
	"net"
	"os"
	"strconv"
)

// Admin is the server that commands and operators talk to.
type Admin struct {
	Listen string `yaml:"listen" default:"unix" desc:"unix is a socket in data_dir that only its owner may use; HOST:PORT needs a token; off is for nobody, and then commands such as drover status do not work"`
	Token  Secret `yaml:"token" desc:"with HOST:PORT: what a request must bring as Authorization: Bearer TOKEN; usually file:PATH"`
	Pprof  bool   `yaml:"pprof" default:"false" desc:"serve Go's profiles, below /debug/pprof/"`
}

// Probes is a server for those who cannot bring a token, such as a kubelet.
type Probes struct {
	Listen  string `yaml:"listen" desc:"HOST:PORT, such as :8081, for /healthz and /readyz; nowhere by default"`
	Metrics bool   `yaml:"metrics" default:"false" desc:"serve /metrics there, too"`
}

// shortestToken is the fewest characters that a token may have: 16 of base64 are 96 bits.
const shortestToken = 16

// readableByOthers are the bits of a file's mode that let others read it.
const readableByOthers = 0o044

func (x *completion) admin() {
	a := x.Admin
	switch {
	case a.Listen == "unix" || a.Listen == "off":
		if a.Token != "" {
			x.wrong("admin.token", "it goes with listen: HOST:PORT; a unix socket is guarded by its mode")
		}
	case !validListen(a.Listen):
		x.wrong("admin.listen", "%q is neither unix, nor off, nor HOST:PORT", a.Listen)
	case a.Token == "":
		x.wrong("admin.listen", "on %s anybody on this machine, or more, could use it: give a token, usually as file:PATH, or listen on unix", a.Listen)
	case len(a.Token) < shortestToken:
		x.wrong("admin.token", "it has fewer than %d characters; `openssl rand -hex 16` makes a good one", shortestToken)
	}
	if file := x.files["admin.token"]; file != "" {
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&readableByOthers != 0 {
			x.wrong("admin.token", "others may read the file %s (mode %04o); chmod 600 it", file, info.Mode().Perm())
		}
	}
	if x.Probes.Listen != "" && !validListen(x.Probes.Listen) {
		x.wrong("probes.listen", "%q is no HOST:PORT; write it as :8081", x.Probes.Listen)
	}
	if x.Probes.Metrics && x.Probes.Listen == "" {
		x.wrong("probes.metrics", "it needs probes.listen, such as :8081")
	}
}

func validListen(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	return err == nil && n >= 0 && n <= 65535
}
