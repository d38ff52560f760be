package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

func TestOpenAPICommand(t *testing.T) {
	status, text, errs := command(t.Context(), nil, nil, "config", "openapi")
	var document struct {
		OpenAPI string         `json:"openapi"`
		Paths   map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(text), &document); status != ExitOK || err != nil {
		t.Fatalf("status %d, %v: %s", status, err, errs)
	}
	if paths := slices.Sorted(maps.Keys(document.Paths)); document.OpenAPI != "3.1.0" || !slices.Contains(paths, "/v1/functions/{name}/pause") {
		t.Errorf("%s, %v", document.OpenAPI, paths)
	}
}
