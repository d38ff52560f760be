package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The two examples of Azure's performance guide run as written, in both models: the second waits
// for ten requests at once, from the first one on.
func TestRunExamplesOfThePerformanceGuide(t *testing.T) {
	t.Parallel()
	inFunctionAppPython(t, "3.13", func(t *testing.T, environment string) {
		const atOnce = 10
		var mu sync.Mutex
		waiting, released := 0, make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ten" { // none is answered before all are there
				mu.Lock()
				turn := released
				if waiting++; waiting == atOnce {
					waiting, released = 0, make(chan struct{})
					close(turn)
				}
				mu.Unlock()
				select {
				case <-turn:
				case <-r.Context().Done():
				}
			}
			_, _ = io.WriteString(w, "hello")
		}))
		t.Cleanup(server.Close)
		for model, files := range map[string]string{"seed-v1": "fetch/__init__.py ten_gets/__init__.py", "seed-v2": "function_app.py"} {
			dir := copyApp(t, model)
			for name := range strings.FieldsSeq(files) {
				path := filepath.Join(dir, name)
				source, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				source = bytes.ReplaceAll(source, []byte(`"YOUR_URL"`), []byte(strconv.Quote(server.URL)))
				source = bytes.ReplaceAll(source, []byte(`'URL'`), []byte(strconv.Quote(server.URL+"/ten")))
				if err := os.WriteFile(path, source, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			url, _, _ := runHTTPApp(t, dir, environment)
			exchange{"GET", "/api/ten_gets", "", 200, "Complete", ""}.check(t, url)
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() { exchange{"GET", "/api/fetch", "", 200, "hello", ""}.check(t, url) })
			}
			all.Wait()
		}
	})
}
