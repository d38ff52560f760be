package routes_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/drover-run/drover/triggers/httptrigger/routes"
)

// table makes a table of templates, each with its own text as the value. "GET,POST x" restricts
// the methods.
func table(t *testing.T, templates ...string) *routes.Table[string] {
	t.Helper()
	out := new(routes.Table[string])
	for _, text := range templates {
		methods, template, restricted := strings.Cut(text, " ")
		var list []string
		if restricted {
			list = strings.Split(methods, ",")
		} else {
			template = methods
		}
		r, err := routes.Parse(template)
		if err != nil {
			t.Fatal(err)
		}
		out.Add(r, list, template)
	}
	return out
}

func find(t *testing.T, in *routes.Table[string], method, target string) string {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	m, allowed, found := in.Find(method, u)
	switch {
	case found:
		text := m.Value
		for _, p := range m.Params {
			text += fmt.Sprintf(" %s=%q", p.Name, p.Value)
		}
		return text
	case len(allowed) > 0:
		return "405 " + strings.Join(allowed, ",")
	}
	return "404"
}

func TestFind(t *testing.T) {
	all := table(t, "", "orders", "orders/{id:int}", "orders/{name}", "orders/{id:int}/items/{item?}", "orders/new", "files/{*path}",
		"GET only", "POST,PUT only/{x}", "GET only/{y}", "pages/{page=1}/{size:int=20}", "a-{x}-b", "docs/{name}.{ext}", "deep/{**rest:length(3)}",
		"Größe/{x}", "opt/{a?}/{b?}")
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/", ""},
		{"GET", "/orders", "orders"},
		{"GET", "/ORDERS/", "orders"},
		{"GET", "/orders/new", "orders/new"},
		{"GET", "/orders/NEW", "orders/new"},
		{"GET", "/orders/17", `orders/{id:int} id="17"`},
		{"GET", "/orders/-17", `orders/{id:int} id="-17"`},
		{"GET", "/orders/99999999999", `orders/{name} name="99999999999"`},
		{"GET", "/orders/Abc", `orders/{name} name="Abc"`},
		{"GET", "/orders/17/items", `orders/{id:int}/items/{item?} id="17"`},
		{"GET", "/orders/17/Items/x%20y", `orders/{id:int}/items/{item?} id="17" item="x y"`},
		{"GET", "/orders/x/items", "404"},
		{"GET", "/orders/17/items/a/b", "404"},
		{"GET", "/files", "files/{*path}"},
		{"GET", "/files/a/b/c.txt", `files/{*path} path="a/b/c.txt"`},
		{"GET", "/files/a%2Fb/c%41", `files/{*path} path="a%2Fb/cA"`},
		{"GET", "/orders/..%2f..%2fetc", `orders/{name} name="..%2f..%2fetc"`},
		{"GET", "/only", "only"},
		{"DELETE", "/only", "405 GET"},
		{"DELETE", "/only/1", "405 GET,POST,PUT"},
		{"GET", "/only/1", `only/{y} y="1"`},
		{"PUT", "/only/1", `only/{x} x="1"`},
		{"GET", "/pages", `pages/{page=1}/{size:int=20} page="1" size="20"`},
		{"GET", "/pages/3", `pages/{page=1}/{size:int=20} page="3" size="20"`},
		{"GET", "/pages/3/50", `pages/{page=1}/{size:int=20} page="3" size="50"`},
		{"GET", "/pages/3/x", "404"},
		{"GET", "/A-17-B", `a-{x}-b x="17"`},
		{"GET", "/a--b", "404"},
		{"GET", "/docs/a.tar.gz", `docs/{name}.{ext} name="a.tar" ext="gz"`},
		{"GET", "/docs/none", "404"},
		{"GET", "/deep/abc", `deep/{**rest:length(3)} rest="abc"`},
		{"GET", "/deep/a/c", `deep/{**rest:length(3)} rest="a/c"`},
		{"GET", "/deep/abcd", "404"},
		{"GET", "/gr%C3%B6%C3%9Fe/1", `Größe/{x} x="1"`},
		{"GET", "/opt", "opt/{a?}/{b?}"},
		{"GET", "/opt/1/2", `opt/{a?}/{b?} a="1" b="2"`},
		{"GET", "/orders//17", "404"},
		{"GET", "//orders", "404"},
		{"GET", "/orders//", "404"},
		{"GET", "/nothing", "404"},
		{"GET", strings.Repeat("/x", 200), "404"},
	} {
		if got := find(t, all, c.method, c.path); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, got, c.want)
		}
	}
}

// The order in which routes are added matters only between two of the same rank.
func TestTheMostSpecificRouteIsFound(t *testing.T) {
	templates := []string{"{*all}", "{a}/{b}", "{a}/b", "a/{b:alpha}", "a/{b}", "a/b", "{*some:regex(^x)}"}
	want := map[string]string{
		"/a/b": "a/b", "/a/c": `a/{b:alpha} b="c"`, "/a/1": `a/{b} b="1"`, "/c/b": `{a}/b a="c"`,
		"/c/d": `{a}/{b} a="c" b="d"`, "/c/d/e": `{*all} all="c/d/e"`, "/xyz/d/e": `{*some:regex(^x)} some="xyz/d/e"`, "/": "{*all}",
	}
	for range 2 {
		for range templates {
			templates = append(templates[1:], templates[0])
			in := table(t, templates...)
			for path, expected := range want {
				if got := find(t, in, "GET", path); got != expected {
					t.Errorf("%v: %s: %s, want %s", templates, path, got, expected)
				}
			}
		}
		slices.Reverse(templates)
	}
}

func TestConstraints(t *testing.T) {
	for constraint, values := range map[string]struct{ good, bad []string }{
		"int":                   {[]string{"0", "-5", "2147483647"}, []string{"2147483648", "1.5", "x"}},
		"long":                  {[]string{"2147483648"}, []string{"9223372036854775808"}},
		"bool":                  {[]string{"true", "FALSE"}, []string{"1", "yes"}},
		"guid":                  {[]string{"CD2C1638-1638-72D5-1638-DEADBEEF1638", "cd2c1638163872d51638deadbeef1638", "{CD2C1638-1638-72D5-1638-DEADBEEF1638}"}, []string{"cd2c1638", "gd2c1638163872d51638deadbeef1638"}},
		"alpha":                 {[]string{"Rick"}, []string{"rick1", "r-k"}},
		"datetime":              {[]string{"2016-12-31", "2016-12-31T17:32:00Z"}, []string{"tomorrow"}},
		"double":                {[]string{"1.234", "-1001.1e8"}, []string{"x"}},
		"length(3)":             {[]string{"abc", "äöü"}, []string{"ab", "abcd"}},
		"length(2,3)":           {[]string{"ab", "abc"}, []string{"a", "abcd"}},
		"minlength(3)":          {[]string{"abc", "abcd"}, []string{"ab"}},
		"maxlength(3)":          {[]string{"a", "abc"}, []string{"abcd"}},
		"min(18)":               {[]string{"18", "19"}, []string{"17", "x"}},
		"max(18)":               {[]string{"18", "-3"}, []string{"19"}},
		"range(18,20)":          {[]string{"18", "20"}, []string{"17", "21"}},
		`regex(^\\d{{3}}$)`:     {nil, []string{"123"}}, // a doubled backslash is one of JSON, which is read before
		`regex(^\d{{3}}-\d$)`:   {[]string{"123-4"}, []string{"12-4", "x"}},
		`regex(^(a|b(c))$)`:     {[]string{"a", "BC"}, []string{"ac"}},
		"int:range(1,9):min(5)": {[]string{"5", "9"}, []string{"4", "10"}},
	} {
		in := table(t, "{x:"+constraint+"}")
		for _, v := range values.good {
			if got := find(t, in, "GET", "/"+url.PathEscape(v)); got == "404" {
				t.Errorf("%s refuses %q", constraint, v)
			}
		}
		for _, v := range values.bad {
			if got := find(t, in, "GET", "/"+url.PathEscape(v)); got != "404" {
				t.Errorf("%s accepts %q", constraint, v)
			}
		}
	}
}

func TestTemplatesThatAreWrong(t *testing.T) {
	for template, want := range map[string]string{
		"a//b":                   "two slashes",
		"a/{b":                   "no closing brace",
		"a/b}":                   "} without a {",
		"a/{}":                   "needs a name",
		"a/{:int}":               "needs a name",
		"{a}/{A}":                "parameter A twice",
		"{*a}/b":                 "must be the last segment",
		"x{*a}":                  "must be the last segment",
		"{a?}/b":                 "nothing may follow it",
		"x{a?}":                  "must be a whole segment",
		"{a}{b}":                 "put a literal between {a} and {b}",
		"{a:integer}":            `no constraint "integer"; there are alpha, bool`,
		"{a:int(3)}":             "takes no arguments",
		"{a:range(1)}":           "it takes 2",
		"{a:min(x)}":             "not a whole number",
		"{a:regex(()}":           "no closing parenthesis",
		"{a:regex([)}":           "missing closing ]",
		"{a:regex}":              "needs an expression",
		"a?b=c":                  "a query is not part of a route",
		"{*a?}":                  "may be empty anyway",
		"{a=1?}":                 "optional already",
		strings.Repeat("a/", 70): "more than 64 segments",
	} {
		if _, err := routes.Parse(template); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", template, err, want)
		}
	}
}

// Two templates with the same shape match the same paths.
func TestShape(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"orders/{id}", "/Orders/{name}/", true},
		{"orders/{id:int}", "orders/{id}", false},
		{"orders/{id?}", "orders/{id}", false},
		{"{{x}}", "{x}", false},
	} {
		a, errA := routes.Parse(c.a)
		b, errB := routes.Parse(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if (a.Shape() == b.Shape()) != c.same {
			t.Errorf("%s and %s: %s and %s", c.a, c.b, a.Shape(), b.Shape())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a/{b:regex(x)}", "{*a}", "{a=1}", "{{a}}", "{a:length(1,2)?}"} {
		f.Add(seed, "/a/b")
	}
	f.Fuzz(func(t *testing.T, template, path string) {
		r, err := routes.Parse(template)
		if err != nil {
			return
		}
		in := new(routes.Table[int])
		in.Add(r, nil, 1)
		in.Find("GET", &url.URL{Path: path})
		in.Find("GET", &url.URL{Path: path, RawPath: path})
	})
}

func BenchmarkFind(b *testing.B) {
	in := new(routes.Table[int])
	for i := range 1000 {
		r, err := routes.Parse(fmt.Sprintf("api/function%d/{id:int}", i))
		if err != nil {
			b.Fatal(err)
		}
		in.Add(r, []string{"GET"}, i)
	}
	u := &url.URL{Path: "/api/function500/17"}
	for b.Loop() {
		if _, _, found := in.Find("GET", u); !found {
			b.Fatal("not found")
		}
	}
}
