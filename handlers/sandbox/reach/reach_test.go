package reach

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRules(t *testing.T) {
	nameServers = filepath.Join(t.TempDir(), "resolv.conf")
	t.Cleanup(func() { nameServers = "/etc/resolv.conf" })
	if err := os.WriteFile(nameServers, []byte("# nameserver 169.254.1.1\nsearch example.com\nnameserver 169.254.169.253\nnameserver fe80::1%eth0\nnameserver nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "10.0.0.1:80": true, "169.253.255.255:80": true, "169.255.0.0:80": true, "[fd00:ec1::1]:80": true, "[fec0::1]:80": true,
		"169.254.0.0:80": false, "169.254.169.254:80": false, "169.254.255.255:53": false, "[fe80::1]:80": false, "[febf::1]:80": false,
		"[fd00:ec2::254]:80": false, "[fd00:ec2::23]:80": false, "[fd20:ce::254]:80": false,
		"169.254.169.253:53": true, "169.254.169.253:54": false, "[fe80::1]:53": true, "[fe80::2]:53": false, "169.254.1.1:53": false,
	} {
		for _, tcp := range []bool{false, true} {
			if got := (Rules{}).allowsAddress(netip.MustParseAddrPort(to), tcp); got != want {
				t.Errorf("%s, tcp %v: %v", to, tcp, got)
			}
		}
	}
	some := Rules{TCP: []int{443}}
	for to, want := range map[string]bool{"10.0.0.1:443": true, "10.0.0.1:80": false, "169.254.169.253:53": false, "169.254.169.253:443": false} {
		if got := some.allowsAddress(netip.MustParseAddrPort(to), true); got != want {
			t.Errorf("%s of some ports: %v", to, got)
		}
	}
	if !some.allowsAddress(netip.MustParseAddrPort("10.0.0.1:80"), false) {
		t.Error("the ports of UDP are limited")
	}
	nameServers = filepath.Join(t.TempDir(), "gone")
	if (Rules{}).allowsAddress(netip.MustParseAddrPort("169.254.169.253:53"), false) {
		t.Error("without the file every address is a name server's")
	}
}

func TestAddress(t *testing.T) {
	for name, want := range map[string]string{
		"\x02\x00\x00\x50\xa9\xfe\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00":                                                 "169.254.1.2:80",
		"\x00\x00\x00\x50\xa9\xfe\x01\x02":                                                                                 "169.254.1.2:80", // udp_sendmsg takes it for IPv4
		"\x0a\x00\x00\x35\x00\x00\x00\x00\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00": "[fe80::1]:53",
		"\x0a\x00\x00\x35\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xa9\xfe\x01\x02\x00\x00\x00\x00": "169.254.1.2:53",
		"\x0a\x00\x00\x35\x00\x00\x00\x00\xa9\xfe\x01\x02":                                                                 "", "\x01\x00/run/socket": "", "\x02\x00": "", "": "",
	} {
		got, known := parseAddress([]byte(name))
		if known != (want != "") || known && got.String() != want {
			t.Errorf("%q: %v, %v", name, got, known)
		}
	}
}
