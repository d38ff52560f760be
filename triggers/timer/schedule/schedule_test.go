package schedule

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func parse(t testing.TB, text, in string) *Schedule {
	t.Helper()
	s, err := Parse(text, zone(t, in))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

const form = "Mon 2006-01-02 15:04:05 -07"

// The expected times are the same as in NCRONTAB and the Azure Functions host. Only "autumn, a
// point, long before" differs: the host skips it.
func TestNext(t *testing.T) {
	const start = "2026-11-30T23:10:07Z" // a Monday
	for _, test := range []struct {
		name, text, zone, after string
		want                    []string
	}{
		{"every five minutes", "0 */5 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:15:00 +00", "Mon 2026-11-30 23:20:00 +00"}},
		{"five fields have the second 0", "*/5 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:15:00 +00"}},
		{"every second", "* * * * * *", "UTC", start, []string{"Mon 2026-11-30 23:10:08 +00"}},
		{"strictly after", "0 15 23 * * *", "UTC", "2026-11-30T23:15:00Z", []string{"Tue 2026-12-01 23:15:00 +00"}},
		{"a fraction before", "0 15 23 * * *", "UTC", "2026-11-30T23:14:59.999Z", []string{"Mon 2026-11-30 23:15:00 +00"}},
		{"working days", "0 30 9 * * 1-5", "UTC", "2026-12-04T10:00:00Z", []string{"Mon 2026-12-07 09:30:00 +00"}},
		{"day of month and weekday", "0 0 0 13 * 5", "UTC", start, []string{"Fri 2027-08-13 00:00:00 +00"}},
		{"the second Monday", "0 0 9 8-14 * Mon", "UTC", start, []string{"Mon 2026-12-14 09:00:00 +00", "Mon 2027-01-11 09:00:00 +00"}},
		{"names", "0 0 0 * janu,DEC sun", "UTC", start, []string{"Sun 2026-12-06 00:00:00 +00"}},
		{"the first name with a prefix", "0 0 0 * M S", "UTC", start, []string{"Sun 2027-03-07 00:00:00 +00"}},
		{"a range of names", "0 0 12 * * tue-thursday", "UTC", "2026-12-03T12:00:00Z", []string{"Tue 2026-12-08 12:00:00 +00"}},
		{"a swapped range", "0 0 22-2 * * *", "UTC", "2026-11-30T03:00:00Z", []string{"Mon 2026-11-30 04:00:00 +00"}},
		{"a swapped range of names", "0 0 0 * * Fri-Mon", "UTC", "2026-12-01T00:00:00Z", []string{"Wed 2026-12-02 00:00:00 +00"}},
		{"a value with a step", "0 40/10 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:40:00 +00", "Mon 2026-11-30 23:50:00 +00", "Tue 2026-12-01 00:40:00 +00"}},
		{"a range with a step", "0 10-31/10 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:20:00 +00", "Mon 2026-11-30 23:30:00 +00", "Tue 2026-12-01 00:10:00 +00"}},
		{"the step 0 is 1", "0 */0 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:11:00 +00"}},
		{"a list", "0 0,12,30-32 * * * *", "UTC", start, []string{"Mon 2026-11-30 23:12:00 +00", "Mon 2026-11-30 23:30:00 +00", "Mon 2026-11-30 23:31:00 +00"}},
		{"yearly", "0 0 0 1 1 *", "UTC", start, []string{"Fri 2027-01-01 00:00:00 +00"}},
		{"a leap day", "0 0 0 29 2 *", "UTC", start, []string{"Tue 2028-02-29 00:00:00 +00"}},
		{"a leap day on a Monday", "0 0 0 29 2 1", "UTC", start, []string{"Mon 2044-02-29 00:00:00 +00"}},
		{"a zone", "0 0 9 * * *", "Europe/Berlin", start, []string{"Tue 2026-12-01 09:00:00 +01"}},
		{"a day of the zone", "0 0 0 1 * *", "Europe/Berlin", start, []string{"Fri 2027-01-01 00:00:00 +01"}},
		{"a span", "00:05:00", "UTC", start, []string{"Mon 2026-11-30 23:15:07 +00", "Mon 2026-11-30 23:20:07 +00"}},
		{"a span with days", "1.02:00:00", "UTC", start, []string{"Wed 2026-12-02 01:10:07 +00"}},
		{"a span of hours and minutes", "01:30", "UTC", start, []string{"Tue 2026-12-01 00:40:07 +00"}},

		// Berlin, 2027-03-28: 02:00 +01 is 03:00 +02.
		{"spring, left out", "0 30 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", []string{"Sun 2027-03-28 03:30:00 +02", "Mon 2027-03-29 02:30:00 +02"}},
		{"spring, at the change", "0 0 2 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", []string{"Sun 2027-03-28 03:00:00 +02", "Mon 2027-03-29 02:00:00 +02"}},
		{"spring, left out and the next", "0 30 2,3 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z", []string{"Sun 2027-03-28 03:30:00 +02", "Mon 2027-03-29 02:30:00 +02"}},
		{"spring, an interval", "0 */30 * * * *", "Europe/Berlin", "2027-03-28T00:20:00Z", []string{"Sun 2027-03-28 01:30:00 +01", "Sun 2027-03-28 03:00:00 +02", "Sun 2027-03-28 03:30:00 +02"}},
		{"spring, long before", "0 30 2 28 3 *", "Europe/Berlin", "2026-11-30T00:00:00Z", []string{"Sun 2027-03-28 03:30:00 +02", "Tue 2028-03-28 02:30:00 +02"}},
		{"spring, after", "0 30 2 * * *", "Europe/Berlin", "2027-03-28T01:30:00Z", []string{"Mon 2027-03-29 02:30:00 +02"}},

		// Berlin, 2027-10-31: 03:00 +02 is 02:00 +01.
		{"autumn, a point", "0 30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00Z", []string{"Sun 2027-10-31 02:30:00 +02", "Mon 2027-11-01 02:30:00 +01"}},
		{"autumn, a point, started between", "0 30 2 * * *", "Europe/Berlin", "2027-10-31T01:10:00Z", []string{"Mon 2027-11-01 02:30:00 +01"}},
		{"autumn, a point, long before", "0 30 2 31 10 *", "Europe/Berlin", "2026-11-30T00:00:00Z", []string{"Sun 2027-10-31 02:30:00 +02"}},
		{"autumn, points around", "0 30 1,2,3 * * *", "Europe/Berlin", "2027-10-30T23:00:00Z", []string{"Sun 2027-10-31 01:30:00 +02", "Sun 2027-10-31 02:30:00 +02", "Sun 2027-10-31 03:30:00 +01"}},
		{"autumn, an interval", "0 */30 * * * *", "Europe/Berlin", "2027-10-30T23:45:00Z",
			[]string{"Sun 2027-10-31 02:00:00 +02", "Sun 2027-10-31 02:30:00 +02", "Sun 2027-10-31 02:00:00 +01", "Sun 2027-10-31 02:30:00 +01", "Sun 2027-10-31 03:00:00 +01"}},
		{"autumn, an interval within the hour", "0 0-30/15 2 * * *", "Europe/Berlin", "2027-10-31T00:15:00Z",
			[]string{"Sun 2027-10-31 02:30:00 +02", "Sun 2027-10-31 02:00:00 +01", "Sun 2027-10-31 02:15:00 +01", "Sun 2027-10-31 02:30:00 +01", "Mon 2027-11-01 02:00:00 +01"}},
		// Los Angeles, as in the documentation of the host.
		{"autumn, Pacific", "0 30 1 * * *", "America/Los_Angeles", "2018-11-03T00:00:00Z", []string{"Sat 2018-11-03 01:30:00 -07", "Sun 2018-11-04 01:30:00 -07", "Mon 2018-11-05 01:30:00 -08"}},
		// Lord Howe moves its clock by half an hour, at 02:00.
		{"half an hour left out", "0 15,45 2 * * *", "Australia/Lord_Howe", "2027-10-02T00:00:00Z", []string{"Sun 2027-10-03 02:45:00 +11", "Mon 2027-10-04 02:15:00 +11"}},
		// Samoa left out 2011-12-30.
		{"a day left out", "0 0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", []string{"Thu 2011-12-29 12:00:00 -10", "Sat 2011-12-31 12:00:00 +14"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, test.after)
			if err != nil {
				t.Fatal(err)
			}
			s := parse(t, test.text, test.zone)
			for _, want := range test.want {
				at = s.Next(at)
				if got := at.Format(form); got != want {
					t.Fatalf("next is %s, want %s", got, want)
				}
			}
		})
	}
}

// Through both changes of a year, occurrences are in order, and a daily schedule has one a day.
func TestNextThroughAYear(t *testing.T) {
	for _, text := range []string{"0 30 2 * * *", "0 0 0 * * *", "0 30 1 * * *"} {
		for _, name := range []string{"Europe/Berlin", "America/Los_Angeles", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca"} {
			s := parse(t, text, name)
			at := time.Date(2016, 1, 1, 0, 0, 0, 0, s.Zone()).Add(-1)
			days := make(map[string]int)
			for {
				next := s.Next(at)
				if !next.After(at) {
					t.Fatalf("%s in %s: %v follows %v", text, name, next, at)
				}
				if at = next; at.Year() > 2016 {
					break
				}
				days[at.Format(time.DateOnly)]++
			}
			if len(days) != 366 {
				t.Errorf("%s in %s: it comes on %d days of 366", text, name, len(days))
			}
			for day, n := range days {
				if n != 1 {
					t.Errorf("%s in %s: it comes %d times on %s", text, name, n, day)
				}
			}
		}
	}
}

// Each quarter of an hour occurs once, regardless of clock changes.
func TestIntervalThroughAYear(t *testing.T) {
	s := parse(t, "0 */15 * * * *", "Europe/Berlin")
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 4 * 24 * 365 {
		next := s.Next(at)
		if d := next.Sub(at); d != 15*time.Minute {
			t.Fatalf("%v follows %v after %v", next, at, d)
		}
		at = next
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "it is empty"},
		{"*/5 * * *", "it has 4 fields"},
		{"0 0 0 * * * 2027", "it has 7 fields"},
		{"0 61 * * * *", "minute: 61 is not between 0 and 59"},
		{"60 * * * * *", "second: 60 is not between 0 and 59"},
		{"0 0 24 * * *", "hour: 24 is not between 0 and 23"},
		{"0 0 0 0 * *", "day: 0 is not between 1 and 31"},
		{"0 0 0 * 13 *", "month: 13 is not between 1 and 12"},
		{"0 0 0 * * 7", "day of the week: 7 is not a day of the week; Sunday is 0"},
		{"0 0 0 * * 5-7", "Sunday is 0"},
		{"0 0 0 ? * *", `day: "?" is not in NCRONTAB; write *`},
		{"0 0 0 L * *", "there is no last day"},
		{"0 0 0 15W * *", "nearest weekday"},
		{"0 0 0 * * 1#2", "days 8-14"},
		{"0 0 0 * * Mo-", "a value is missing"},
		{"0 1,,2 * * * *", "a value is missing"},
		{"0 ,1 * * * *", "a value is missing"},
		{"0 /5 * * * *", "is not a step"},
		{"0 */x * * * *", "is not a step"},
		{"0 */ * * * *", "is not a step"},
		{"0 -5 * * * *", `"-5" is not a number`},
		{"0 *-5 * * * *", `"*" is not a number`},
		{"0 5x * * * *", `"5x" is not a number`},
		{"0 0 0 * * Mittwoch", "is not one of Sunday"},
		{"0 0 0 * Monday *", "is not one of January"},
		{"0 mon * * * *", `"mon" is not a number between 0 and 59`},
		{"0 0 0 30 2 *", "would never run"},
		{"0 0 0 31 4,6,9,11 *", "would never run"},
		{"@daily", "write 0 0 0 * * *"},
		{"@every 5m", "NCRONTAB has no @every"},
		{"TZ=Europe/Berlin 0 0 0 * * *", "set timezone instead"},
		{"CRON_TZ=UTC 0 0 0 * * *", "set timezone instead"},
		{"00:00:00", "the time span is 0"},
		{"24:00:00", "it has 24 hours"},
		{"00:60:00", "it has 60 minutes"},
		{"00:00:60", "it has 60 seconds"},
		{"00:05:00:00", "not a time span"},
		{"-00:05:00", "not a time span"},
		{"x.00:05:00", "not a time span"},
		{"00:05:", "not a time span"},
		{"00:05:01.", "not a time span"},
		{"99999.00:00:00", "days is more than"},
		{"5", "it has 1 fields"},
	} {
		if s, err := Parse(test.text, time.UTC); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, error %v; want %q", test.text, s, err, test.want)
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"00:00:01": time.Second, "00:00:00.25": 250 * time.Millisecond, "23:59:59": 24*time.Hour - time.Second,
		"2.03:04:05": 51*time.Hour + 4*time.Minute + 5*time.Second, "1:2": time.Hour + 2*time.Minute,
	} {
		if s := parse(t, text, "UTC"); s.Span() != want {
			t.Errorf("%s is %v, want %v", text, s.Span(), want)
		}
	}
}

func TestIsFrequent(t *testing.T) {
	for text, want := range map[string]bool{
		"* * * * * *": true, "0,30 * * * * *": true, "0 * * * * *": false, "* * * * *": false, "59/5 * * * * *": false,
		"00:00:59": true, "00:01:00": false, "*/30 0 0 1 1 *": true,
	} {
		if got := parse(t, text, "UTC").IsFrequent(); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestListNext(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 10, 7, 0, time.UTC)
	if got := parse(t, "0 */5 * * * *", "UTC").ListNext(at, 3); len(got) != 3 || got[2].Format(time.TimeOnly) != "23:25:00" {
		t.Errorf("%v", got)
	}
	if got := parse(t, "00:05:00", "UTC").ListNext(at, 3); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestNotes(t *testing.T) {
	if notes := parse(t, "0 0 22-2 * * Fri-Mon", "UTC").Notes(); len(notes) != 2 || !strings.Contains(notes[0], "hour 22-2 is the range from 2 to 22") {
		t.Errorf("%q", notes)
	}
	if notes := parse(t, "0 0 2-22 * * *", "UTC").Notes(); len(notes) != 0 {
		t.Errorf("%q", notes)
	}
}

func BenchmarkNext(b *testing.B) {
	s := parse(b, "0 30 2 * * *", "Europe/Berlin")
	at := time.Date(2027, 3, 27, 12, 0, 0, 0, time.UTC)
	for b.Loop() {
		s.Next(at)
	}
}
