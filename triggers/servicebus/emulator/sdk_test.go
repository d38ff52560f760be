package emulator

import (
	"path/filepath"
	"testing"

	"github.com/drover-run/drover/triggers/sdktest"
)

// The SDKs of other languages, as their users run them: with the connection
// string that the emulator prints.

func TestPythonSDK(t *testing.T) { runSDK(t, "servicebus.py") }

func TestJavaScriptSDK(t *testing.T) { runSDK(t, "servicebus.js") }

func runSDK(t *testing.T, script string) {
	b := start(t, Options{})
	sdktest.Run(t, filepath.Join("testdata", script), b.ConnectionString(b.address))
}
