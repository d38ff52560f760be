package emulator_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/sdktest"
	"github.com/drover-run/drover/triggers/storagequeue/azuritetest"
	"github.com/drover-run/drover/triggers/storagequeue/emulator"
)

// The SDKs of other languages. The same checks pass with Azurite.

func TestPythonSDK(t *testing.T) { runSDK(t, "storagequeue.py") }

func TestJavaScriptSDK(t *testing.T) { runSDK(t, "storagequeue.js") }

func runSDK(t *testing.T, script string) {
	script = filepath.Join("testdata", script)
	t.Run("emulator", func(t *testing.T) {
		_, connection := start(t)
		sdktest.Run(t, script, connection)
	})
	t.Run("azurite", func(t *testing.T) {
		sdktest.Run(t, script, azuritetest.StartIn(t, t.TempDir(), "0", "--skipApiVersionCheck").ConnectionString())
	})
}

func TestExamplesOfTheDocumentation(t *testing.T) {
	for _, language := range []string{"python", "js"} {
		t.Run(language, func(t *testing.T) {
			e, connection := start(t)
			if err := e.CreateQueue("orders"); err != nil {
				t.Fatal(err)
			}
			out := sdktest.RunExample(t, "../../../docs/azure-storage-queue.md", language, "UseDevelopmentStorage=true", connection)
			if !strings.Contains(strings.ReplaceAll(out, " ", ""), `{"id":1}`) || e.Len("orders") > 0 {
				t.Errorf("%s; %d messages left", out, e.Len("orders"))
			}
		})
	}
}

// A request may have line breaks between its elements, like files on Windows.
func TestLineEndsAroundElements(t *testing.T) {
	e, _ := start(t)
	if err := e.CreateQueue("lines"); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"a\r\nb": "a&#xD;\nb", "<![CDATA[<a>]]>": "&lt;a&gt;"} {
		body := "<?xml version=\"1.0\"?>\r\n<QueueMessage>\r\n<MessageText>" + text + "</MessageText>\r\n</QueueMessage>\r\n"
		put := httptest.NewRecorder()
		e.ServeHTTP(put, httptest.NewRequest(http.MethodPost, "/"+emulator.Account+"/lines/messages", strings.NewReader(body)))
		got := httptest.NewRecorder()
		e.ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/"+emulator.Account+"/lines/messages", nil))
		if put.Code != http.StatusCreated || !strings.Contains(got.Body.String(), "<MessageText>"+want+"</MessageText>") {
			t.Errorf("%q: %d %s, then %s", text, put.Code, put.Body, got.Body)
		}
	}
}
