package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// panel has the checked parts of a Grafana panel.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Datasource *struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	Targets []struct {
		Expr string `json:"expr"`
	} `json:"targets"`
}

// The dashboard is consistent: its panels do not overlap, use the selected data source, and query
// existing metrics in PromQL.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title      string  `json:"title"`
		Panels     []panel `json:"panels"`
		Templating struct {
			List []struct {
				Name, Type string
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := make(map[string]string)
	for _, v := range dashboard.Templating.List {
		variables[v.Name] = v.Type
	}
	if variables["datasource"] != "datasource" || variables["function"] != "query" {
		t.Errorf("the variables are %v", variables)
	}
	ids := make(map[int]string)
	taken := make(map[[2]int]string)
	var exprs []string
	for _, p := range dashboard.Panels {
		if other, found := ids[p.ID]; found {
			t.Errorf("%s and %s are both panel %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %q, or beside the page, at %d, %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Datasource == nil || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%s does not ask the source that was chosen", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	rules := "groups:\n  - name: dashboard\n    rules:\n"
	found := 0
	for i, expr := range exprs {
		found += checkMetricNames(t, "the dashboard", expr)
		rules += fmt.Sprintf("      - {record: panel:expression:n%d, expr: %q}\n", i, withoutVariables(expr))
	}
	if found < 25 {
		t.Errorf("the dashboard names only %d metrics", found)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := promtool(t, "check", "rules", file); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, said)
	}
}

// withoutVariables returns a panel's expression in the form that Grafana queries.
func withoutVariables(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$job", ".*", "$instance", ".*", "$function", ".*", "$app", ".*").Replace(expr)
}
