package effective

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/drover-run/drover/configs"
)

// maxHost bounds a host.json, in bytes.
const maxHost = 1 << 20

// hostKeys are the keys of host.json that set a value of a function, by its key.
var hostKeys = map[string][]string{
	"timeout":            {"functionTimeout"},
	"concurrency":        {"extensions.queues.batchSize", "extensions.queues.newBatchThreshold", "extensions.serviceBus.maxConcurrentCalls", "extensions.serviceBus.maxConcurrentSessions", "extensions.http.maxConcurrentRequests"},
	"retry.max_attempts": {"extensions.queues.maxDequeueCount"},
	"retry.initial":      {"extensions.queues.visibilityTimeout"},
	"retry.max":          {"extensions.queues.visibilityTimeout"},
	"log_level":          {"logging.logLevel.Function"},
}

// readHost returns the place of each key in the host.json of a function app, by its path; nil without one.
func readHost(c *configs.Config) map[string]string {
	if c.FunctionApp == nil {
		return nil
	}
	dir := c.File
	if filepath.Base(dir) == "drover.yaml" {
		dir = filepath.Dir(dir)
	}
	file := filepath.Join(dir, "host.json")
	info, err := os.Stat(file)
	if err != nil || info.Size() > maxHost {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	out := make(map[string]string)
	in := json.NewDecoder(bytes.NewReader(text))
	_ = flatten(in, "", func(path string) { // after an error, the keys before it are known
		line := 1 + bytes.Count(text[:in.InputOffset()], []byte("\n"))
		out[strings.ToLower(path)] = fmt.Sprintf("%s in %s:%d", path, file, line)
	})
	return out
}

// flatten reads a value, and calls each with the path of each key in it.
func flatten(in *json.Decoder, path string, each func(path string)) error {
	token, err := in.Token()
	if err != nil {
		return err
	}
	open, isDelim := token.(json.Delim)
	if !isDelim {
		return nil
	}
	for in.More() {
		at := path
		if open == '{' {
			key, err := in.Token()
			if err != nil {
				return err
			}
			at = join(path, fmt.Sprint(key))
			each(at)
		}
		if err := flatten(in, at, each); err != nil {
			return err
		}
	}
	_, err = in.Token() // the end
	return err
}

// fromHost returns the origin of a value of a function app; false for one of drover's defaults.
func (l *lister) fromHost(parts []string) (where string, found bool) {
	keys := map[string][]string{"log.level": {"logging.logLevel.default"}, "http.prefix": {"extensions.http.routePrefix"}}[strings.Join(parts, ".")]
	if parts[0] == "functions" && len(parts) > 2 {
		keys = hostKeys[strings.Join(parts[2:], ".")]
	}
	for _, key := range keys {
		if where, found := l.host[strings.ToLower(key)]; found {
			return where, true
		}
	}
	switch {
	case parts[0] == "functions" && len(parts) > 2 && (parts[2] == "trigger" || parts[2] == "handler" || strings.HasPrefix(parts[2], "output")):
		return "the code of the function", true
	case parts[0] == "functions" && len(parts) > 2 && parts[2] == "retry", parts[0] == "functions" && len(parts) > 2 && parts[2] == "timeout":
		return "the code of the function, or Azure's default", true
	case parts[0] == "connections":
		return "the settings of the app", true
	case parts[0] == "apps" && len(parts) > 2 && (parts[2] == "path" || parts[2] == "environment"):
		return "the function app", true
	}
	return "", false
}
