package sandbox

import (
	"slices"
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	given := []string{"PATH=/bin", "HOME=/root", "USER=root", "LC_ALL=C", "SECRET=x", "AzureWebJobsStorage=y", "AZURE_CLIENT_ID=z", "TMPDIR=/tmp", "DROVER_INSTANCE=1", "DROVER_X=2", "NOTIFY_SOCKET=3", "WATCHDOG_USEC=4", "LISTEN_FDS=5"}
	for _, c := range []struct {
		what   string
		e      Environment
		strict bool
		who    account
		want   string
	}{
		{"all but drover's own", Environment{}, false, account{}, "AZURE_CLIENT_ID=z AzureWebJobsStorage=y HOME=/root LC_ALL=C PATH=/bin SECRET=x TMPDIR=/tmp USER=root"},
		{"variables that the configuration reads are withheld, except common ones", Environment{Withheld: []string{"SECRET", "AzureWebJobsStorage", "PATH", "HOME"}}, false, account{}, "AZURE_CLIENT_ID=z HOME=/root LC_ALL=C PATH=/bin TMPDIR=/tmp USER=root"},
		{"unless it is named", Environment{Withheld: []string{"SECRET", "AZURE_CLIENT_ID"}, Pass: []string{"PATH", "SECRET", "AZURE_*"}}, false, account{}, "AZURE_CLIENT_ID=z PATH=/bin SECRET=x"},
		{"or set", Environment{Withheld: []string{"SECRET"}, Pass: []string{}, Set: map[string]string{"SECRET": "own"}}, false, account{}, "SECRET=own"},
		{"strict", Environment{}, true, account{}, "HOME=/root LC_ALL=C PATH=/bin USER=root"},
		{"what is named", Environment{Pass: []string{"PATH", "AZURE_*", "DROVER_*"}}, true, account{}, "AZURE_CLIENT_ID=z PATH=/bin"},
		{"none", Environment{Pass: []string{}}, false, account{}, ""},
		{"and what is set", Environment{Pass: []string{"PATH"}, Set: map[string]string{"PATH": "/usr/bin", "DROVER_X": "", "A": "b=c"}}, false, account{}, "A=b=c DROVER_X= PATH=/usr/bin"},
		{"another user", Environment{Pass: []string{"PATH", "HOME", "USER"}}, false, account{"app", "/home/app"}, "HOME=/home/app LOGNAME=app PATH=/bin USER=app"},
		{"another user, with its own home", Environment{Pass: []string{}, Set: map[string]string{"HOME": "/srv"}}, false, account{"app", "/home/app"}, "HOME=/srv LOGNAME=app USER=app"},
	} {
		if got := strings.Join(c.e.selectFrom(slices.Clone(given), c.strict, c.who), " "); got != c.want {
			t.Errorf("%s: %s; wanted %s", c.what, got, c.want)
		}
	}
}
