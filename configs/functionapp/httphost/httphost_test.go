package httphost

import (
	"maps"
	"reflect"
	"testing"

	"github.com/drover-run/drover/configs/servers"
)

func TestSetServer(t *testing.T) {
	for name, c := range map[string]struct {
		keys, settings map[string]string
		want           servers.HTTP
	}{
		"nothing":          {nil, nil, servers.HTTP{Listen: "usual", Prefix: "api", MaxRequests: 1}},
		"no prefix":        {map[string]string{"extensions:http:routePrefix": ""}, nil, servers.HTTP{Listen: "usual", MaxRequests: 1}},
		"port":             {nil, map[string]string{Port: "7171"}, servers.HTTP{Listen: "127.0.0.1:7171", Prefix: "api", MaxRequests: 1}},
		"URLs":             {nil, map[string]string{Port: "7171", urls: "https://+:443;http://+:80"}, servers.HTTP{Listen: ":80", Prefix: "api", MaxRequests: 1}},
		"URL of one host":  {nil, map[string]string{urls: "http://localhost:5000/"}, servers.HTTP{Listen: "localhost:5000", Prefix: "api", MaxRequests: 1}},
		"URL without port": {nil, map[string]string{urls: "http://*"}, servers.HTTP{Listen: ":80", Prefix: "api", MaxRequests: 1}},
		"only TLS":         {nil, map[string]string{urls: "https://+:443"}, servers.HTTP{Listen: "usual", Prefix: "api", MaxRequests: 1}},
		"no limit":         {map[string]string{"Extensions:Http:maxOutstandingRequests": "-1"}, nil, servers.HTTP{Listen: "usual", Prefix: "api", MaxRequests: mostRequests}},
		"headers and keys": {
			map[string]string{"extensions:http:customHeaders:X-A": "1", "extensions:http:maxOutstandingRequests": "20"}, map[string]string{secrets: "/run/keys"},
			servers.HTTP{Listen: "usual", Prefix: "api", MaxRequests: 20, Headers: map[string]string{"X-A": "1"}, Keys: servers.HTTPKeys{Directory: "/run/keys"}},
		},
	} {
		got := servers.HTTP{Listen: "usual", MaxRequests: 1}
		SetServer(&got, Source{Keys: maps.All(c.keys), Setting: func(name string) (string, string, bool) {
			value, found := c.settings[name]
			return value, "", found
		}})
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	for text, ok := range map[string]bool{"7071": true, "0": false, "65536": false, "x": false, "": false} {
		if err := CheckPort(text); (err == nil) != ok {
			t.Errorf("port %q: %v", text, err)
		}
	}
}
