package keys_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drover-run/drover/triggers/httptrigger/keys"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The files are like those that the host writes.
const (
	hostJSON = `{"masterKey": {"name": "master", "value": "m1", "encrypted": false},
		"functionKeys": [{"name": "default", "value": "all1", "encrypted": false}, {"name": "second", "value": "all2", "encrypted": false}],
		"systemKeys": [{"name": "s", "value": "sys", "encrypted": false}], "hostName": "h", "source": "runtime"}`
	ordersJSON = `{"keys": [{"name": "default", "value": "o1", "encrypted": false}]}`
)

func TestLevels(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "host.json", hostJSON)
	write(t, dir, "orders.json", ordersJSON)
	write(t, dir, "orders.snapshot.2026-01-01.json", `{"keys": [{"name": "default", "value": "old"}]}`)
	write(t, dir, "readme.txt", "x")
	write(t, dir, "host.function.other", "all4\n")
	write(t, dir, "functions.orders.second", "o2\n")
	write(t, dir, "host.master", "m3\n")
	r, err := keys.New(keys.Config{Master: "m2", Default: "all3", Functions: map[string]string{"Price": "p1"}, Directory: dir})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		function string
		level    keys.Level
		key      string
		want     bool
	}{
		{"orders", keys.Anonymous, "", true},
		{"orders", keys.Function, "", false},
		{"orders", keys.Function, "o1", true},
		{"ORDERS", keys.Function, "o1", true},
		{"orders", keys.Function, "O1", false},
		{"orders", keys.Function, "p1", false},
		{"price", keys.Function, "p1", true},
		{"orders", keys.Function, "all1", true},
		{"orders", keys.Function, "all2", true},
		{"orders", keys.Function, "all3", true},
		{"orders", keys.Function, "m1", true},
		{"orders", keys.Function, "m2", true},
		{"orders", keys.Function, "all4", true},
		{"orders", keys.Function, "o2", true},
		{"price", keys.Function, "o2", false},
		{"price", keys.Admin, "m3", true},
		{"orders", keys.Function, "sys", false},
		{"orders", keys.Function, "x", false},
		{"orders", keys.Function, "old", false},
		{"orders", keys.Admin, "all1", false},
		{"orders", keys.Admin, "o1", false},
		{"orders", keys.Admin, "m1", true},
		{"orders", keys.Admin, "", false},
	} {
		if got := r.Allows(c.function, c.level, c.key); got != c.want {
			t.Errorf("%s at level %s with %q: %v", c.function, c.level, c.key, got)
		}
	}
	if r.IsEmpty() || !r.HasKeyFor("other", keys.Admin) {
		t.Error("the ring has keys")
	}
}

func TestWithoutKeysNothingIsAllowed(t *testing.T) {
	r, err := keys.New(keys.Config{Functions: map[string]string{"a": ""}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.IsEmpty() || r.HasKeyFor("a", keys.Function) || r.Allows("a", keys.Function, "") || r.Allows("a", keys.Admin, "") {
		t.Error("an empty key allows something")
	}
	r, err = keys.New(keys.Config{Functions: map[string]string{"a": "k"}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.HasKeyFor("A", keys.Function) || r.HasKeyFor("b", keys.Function) || r.HasKeyFor("a", keys.Admin) {
		t.Error("a key of a function is one for that function alone")
	}
}

func TestFilesThatAreWrong(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"encrypted": {`{"masterKey": {"name": "master", "value": "secretvalue", "encrypted": true}}`, "is encrypted"},
		"no JSON":   {`{"masterKey": secretvalue`, "not JSON"},
		"too large": {strings.Repeat(" ", 2<<20) + "secretvalue", "up to 1 MiB"},
	} {
		dir := t.TempDir()
		write(t, dir, "host.json", c.text)
		_, err := keys.New(keys.Config{Directory: dir})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secretvalue") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := keys.New(keys.Config{Directory: filepath.Join(t.TempDir(), "none")}); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Error(err)
	}
}

// Keys are replaced while requests arrive. An invalid file leaves the earlier keys in effect.
func TestFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "orders.json", ordersJSON)
	synctest.Test(t, func(t *testing.T) {
		r, err := keys.New(keys.Config{Directory: dir})
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "orders.json", strings.Replace(ordersJSON, "o1", "o2", 1))
		if !r.Allows("orders", keys.Function, "o1") {
			t.Error("the file was read again at once")
		}
		time.Sleep(6 * time.Second)
		if r.Allows("orders", keys.Function, "o1") || !r.Allows("orders", keys.Function, "o2") {
			t.Error("the new key does not count")
		}
		write(t, dir, "orders.json", "{")
		time.Sleep(6 * time.Second)
		if !r.Allows("orders", keys.Function, "o2") || r.Err() == nil {
			t.Errorf("the earlier key is lost, or nothing is reported: %v", r.Err())
		}
	})
}
