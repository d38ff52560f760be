package servers

import (
	"net"
	"strconv"

	"github.com/drover-run/drover/configs/problems"
)

// CheckEmbedded checks the listener of the embedded NATS server.
func CheckEmbedded(x *problems.Source, path, listen string) {
	if listen == "off" {
		return
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		x.Wrong(path, "%q is not an address; write HOST:PORT, or off", listen)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		x.Wrong(path, "%q is not a port; write 0 to 65535", port)
	}
	ip := net.ParseIP(host)
	if host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		x.Warn("%s: %s can be reached from other machines without encryption; only the token in the data directory protects it", path, listen)
	}
}
