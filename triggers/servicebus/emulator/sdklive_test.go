//go:build sdklive

package emulator

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The SDK's own live tests, against the emulator: `make sdk-live`. They connect
// to localhost on the ports 5671 and 443, so this needs the right to listen there.

const sdk = "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

// skipped are the live tests that are not run, with the reason.
var skipped = map[string]string{
	"TestAdminClient_TopicAndSub": "wants counts of topics' filters, which the emulator does not have",
	"Websockets":                  "AMQP over websockets is not emulated",
	"UsingCustomEndpoint":         "it expects that nothing listens on port 5671",
	// The emulator delivers all messages at once: it judges the pace of the service, not the protocol.
	"TestReceiveWithDifferentWaitTime": "it expects more messages during a longer wait",
}

// wanted is the number of live tests that must pass, of 87.
const wanted = 81

func TestSDKLive(t *testing.T) {
	e := New(Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	pair, file := selfSigned(t)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	bus, err := tls.Listen("tcp", "127.0.0.1:5671", config)
	if err != nil {
		t.Fatalf("%v; this test needs the ports 5671 and 443", err)
	}
	web, err := tls.Listen("tcp", "127.0.0.1:443", config)
	if err != nil {
		t.Fatalf("%v; this test needs the ports 5671 and 443", err)
	}
	tokens, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admin := &http.Server{Handler: e.Admin(), ReadHeaderTimeout: time.Minute}
	identity := &http.Server{Handler: http.HandlerFunc(identity), ReadHeaderTimeout: time.Minute}
	go func() { _ = e.Serve(bus) }()
	go func() { _ = admin.Serve(web) }()
	go func() { _ = identity.Serve(tokens) }()
	defer func() { _ = admin.Close(); _ = identity.Close(); _ = e.Close() }()
	if err := e.CreateQueue("testQueue", QueueOptions{}); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	env := append(os.Environ(), "AZURE_RECORD_MODE=live", "SSL_CERT_FILE="+file,
		"IDENTITY_ENDPOINT=http://"+tokens.Addr().String()+"/msi/token", "IDENTITY_HEADER=x",
		"AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential",
		"SERVICEBUS_ENDPOINT=localhost", "SERVICEBUS_ENDPOINT_PREMIUM=localhost")
	for _, name := range []string{"", "_PREMIUM", "_NO_MANAGE", "_SEND_ONLY", "_LISTEN_ONLY"} {
		env = append(env, "SERVICEBUS_CONNECTION_STRING"+name+"=")
	}
	run := func(env []string, args ...string) []byte {
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil && args[0] != "test" {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	version := strings.TrimSpace(string(must[[]byte](t)(exec.Command("go", "list", "-m", "-f", "{{.Version}}", sdk).Output())))
	run(os.Environ(), "mod", "init", "sdklive")
	run(os.Environ(), "get", "-t", sdk+"@"+version, sdk+"/internal@"+version)

	// Which tests are live: those that skip themselves where nothing is there.
	live := map[string]bool{}
	names := make([]string, 0, len(skipped))
	for name := range skipped {
		names = append(names, name)
	}
	arguments := func(pkg string) []string {
		return []string{"test", "-count=1", "-json", "-timeout", "12m", pkg, "-skip", strings.Join(names, "|")}
	}
	playback := append(os.Environ(), "AZURE_RECORD_MODE=playback")
	passed, failed, others := 0, []string(nil), []string(nil)
	for _, pkg := range []string{sdk, sdk + "/internal"} {
		for test, result := range results(t, run(playback, arguments(pkg)...)) {
			if result == "skip" {
				live[pkg+" "+test] = true
			}
		}
		output := run(env, arguments(pkg)...)
		got := results(t, output)
		if len(got) == 0 {
			t.Fatalf("no test ran: %s", output)
		}
		// They wait for fixed times, and some fail on a machine that is busy.
		if again := failures(got, live, pkg); len(again) > 0 {
			t.Logf("once more, since they failed: %v", again)
			second := run(env, append(arguments(pkg), "-run", "^("+strings.Join(again, "|")+")$")...)
			for test, result := range results(t, second) {
				got[test] = result
			}
			output = append(output, second...)
		}
		for test, result := range got {
			if !live[pkg+" "+test] {
				continue
			}
			switch result {
			case "pass":
				passed++
			case "skip":
				others = append(others, test)
			default:
				failed = append(failed, test)
				t.Logf("%s", outputOf(output, test))
			}
		}
	}
	t.Logf("%d live tests passed; %d failed: %v; %d skipped themselves: %v; not run: %v", passed, len(failed), failed, len(others), others, skipped)
	if passed < wanted {
		t.Errorf("%d live tests passed; want %d", passed, wanted)
	}
}

// failures are the live tests that failed.
func failures(got map[string]string, live map[string]bool, pkg string) (out []string) {
	for test, result := range got {
		if result == "fail" && live[pkg+" "+test] {
			out = append(out, test)
		}
	}
	return out
}

type event struct{ Action, Test, Output string }

func events(output []byte, do func(event)) {
	scanner := bufio.NewScanner(bytes.NewReader(output))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) == nil && e.Test != "" {
			do(e)
		}
	}
}

// results are the results of the tests, without their subtests.
func results(t *testing.T, output []byte) map[string]string {
	t.Helper()
	out := make(map[string]string)
	events(output, func(e event) {
		if !strings.Contains(e.Test, "/") && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			out[e.Test] = e.Action
		}
	})
	return out
}

func outputOf(output []byte, test string) string {
	var text strings.Builder
	events(output, func(e event) {
		if e.Action == "output" && (e.Test == test || strings.HasPrefix(e.Test, test+"/")) {
			text.WriteString(e.Output)
		}
	})
	all := text.String()
	return all[:min(len(all), 6000)]
}

// identity answers like the endpoint of a managed identity.
func identity(w http.ResponseWriter, r *http.Request) {
	part := func(v any) string {
		data, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(data)
	}
	until := time.Now().Add(time.Hour).Unix()
	token := part(map[string]any{"alg": "none"}) + "." + part(map[string]any{"exp": until, "aud": r.URL.Query().Get("resource")}) + "."
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": token, "expires_on": fmt.Sprint(until), "resource": r.URL.Query().Get("resource"), "token_type": "Bearer",
	})
}

func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	file := filepath.Join(t.TempDir(), "cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}
