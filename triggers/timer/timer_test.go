package timer

import (
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/drover-run/drover/triggers"
	"github.com/drover-run/drover/triggers/timer/schedule"
)

var done = triggers.Verdict{Kind: triggers.Done}

func TestRuns(t *testing.T) {
	for name, test := range map[string]struct {
		schedule  string
		took      time.Duration
		instances int
		want      []string
	}{
		"each occurrence":               {"0 */5 * * * *", 0, 1, []string{"00:05:00", "00:10:00", "00:15:00"}},
		"each once with three":          {"0 */5 * * * *", 0, 3, []string{"00:05:00", "00:10:00", "00:15:00"}},
		"those during a run are missed": {"0 */5 * * * *", 6 * time.Minute, 1, []string{"00:05:00", "00:15:00"}},
		"likewise with three":           {"0 */5 * * * *", 6 * time.Minute, 3, []string{"00:05:00", "00:15:00"}},
		"a span, from the end":          {"00:05:00", time.Minute, 1, []string{"00:05:00", "00:11:00", "00:17:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				store := &shared{term: 10 * time.Second}
				var all []*instance
				for range test.instances {
					all = append(all, start(t, config(t, test.schedule, store)))
				}
				wantRuns(t, runFor(t, 17*time.Minute+30*time.Second, test.took, all...), test.want...)
				for _, i := range all {
					i.stop()
				}
			})
		})
	}
}

func TestMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := config(t, "0 */5 * * * *", &shared{})
		zone, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Schedule, err = schedule.Parse("0 */5 * * * *", zone); err != nil {
			t.Fatal(err)
		}
		i := start(t, cfg)
		runFor(t, 6*time.Minute, 2*time.Second, i)
		time.Sleep(4 * time.Minute)
		d := i.take()
		m := d.Message
		want := `{"Schedule":{"AdjustForDST":true},"ScheduleStatus":{"Last":"2000-01-01T01:05:00+01:00","Next":"2000-01-01T01:10:00+01:00","LastUpdated":"2000-01-01T01:05:02+01:00"},"IsPastDue":false}`
		if string(m.Body) != want {
			t.Errorf("the body is %s, want %s", m.Body, want)
		}
		if m.ID != "2000-01-01T00:10:00Z" || m.Attempt != 1 || m.Subject != "clean" || !m.Enqueued.Equal(time.Now().Truncate(time.Minute)) {
			t.Errorf("the message is %+v", m)
		}
		if _, known := i.NextDue(); known {
			t.Error("the next occurrence is known during a run")
		}
		settle(t, d, done)
		if next, known := i.NextDue(); !known || next.Format(time.RFC3339) != "2000-01-01T01:15:00+01:00" {
			t.Errorf("next is %v", next)
		}
		if notes := i.Notes(); len(notes) != 1 || notes[0] != "the timer is due at 2000-01-01 01:15:00 CET, in 5m0s" {
			t.Errorf("%q", notes)
		}
		i.stop()
	})
}

// Without a monitor, and if it is due more than once a minute, a message has no status.
func TestMessageWithoutMonitor(t *testing.T) {
	for text, monitor := range map[string]bool{"0 */5 * * * *": false, "*/10 * * * * *": true, "00:00:59": true} {
		bubble(t, func(t *testing.T) {
			cfg := config(t, text, &shared{})
			cfg.UseMonitor = monitor
			i := start(t, cfg)
			time.Sleep(5 * time.Minute)
			if d := i.take(); d == nil || string(d.Message.Body) != `{"Schedule":{"AdjustForDST":true},"ScheduleStatus":null,"IsPastDue":false}` {
				t.Errorf("%s: %v", text, d)
			}
		})
	}
}

func TestPastDue(t *testing.T) {
	for name, test := range map[string]struct {
		schedule, then string // then: of the second instance
		monitor        bool
		down           time.Duration // from 00:01:00 on
		want           []string
		pastDue        bool // the first
	}{
		"missed":                     {"0 */5 * * * *", "", true, 20 * time.Minute, []string{"00:21:00", "00:25:00"}, true},
		"not missed":                 {"0 */5 * * * *", "", true, 2 * time.Minute, []string{"00:05:00", "00:10:00", "00:15:00", "00:20:00", "00:25:00"}, false},
		"missed without a monitor":   {"0 */5 * * * *", "", false, 20 * time.Minute, []string{"00:25:00"}, false},
		"missed, but it is frequent": {"30,31 5-55/10 * * * *", "", true, 20 * time.Minute, []string{"00:25:30"}, false},
		"another schedule":           {"0 */5 * * * *", "0 */12 * * * *", true, 20 * time.Minute, []string{"00:24:00"}, false},
		"a span":                     {"00:05:00", "", true, 20 * time.Minute, []string{"00:21:00", "00:26:00"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				store := &shared{}
				first := config(t, test.schedule, store)
				first.UseMonitor = test.monitor
				i := start(t, first)
				time.Sleep(time.Minute)
				i.stop()
				time.Sleep(test.down)
				second := first
				if test.then != "" {
					second = config(t, test.then, store)
				}
				i = start(t, second)
				synctest.Wait()
				var got []string
				for time.Now().Minute() < 27 {
					if d := i.take(); d != nil {
						if past := isPastDue(t, d); past != (test.pastDue && len(got) == 0) {
							t.Errorf("run %d: past due %v", len(got), past)
						}
						got = append(got, time.Now().Format("15:04:05"))
						settle(t, d, done)
						if len(got) == len(test.want) {
							break
						}
					}
					time.Sleep(100 * time.Millisecond)
				}
				wantRuns(t, got, test.want...)
			})
		})
	}
}

func TestRunsAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{}
		cfg := config(t, "0 0 0 1 6 *", store)
		cfg.StartedAt = time.Now()
		one, two := start(t, cfg), start(t, cfg)
		other := cfg // on another machine
		other.StartedAt = time.Now().Add(20 * time.Second)
		wantRuns(t, runFor(t, time.Minute, 0, one, two, start(t, other)), "00:00:00")
		if d := one.take(); d != nil {
			t.Errorf("it has run again: %v", d.Message)
		}
		one.stop()
		two.stop()
		time.Sleep(time.Hour)
		again := start(t, cfg) // an instance that was restarted
		wantRuns(t, runFor(t, time.Minute, 0, again))
		cfg.StartedAt = time.Now()
		wantRuns(t, runFor(t, time.Minute, 0, start(t, cfg)), "01:02:00")
		if next := store.state.Next; next.Month() != time.June {
			t.Errorf("next is %v", next)
		}
	})
}

func TestBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &shared{}
		tr := Open(config(t, "0 */5 * * * *", store)) // of a parent: it only reads
		ready := func(want int64) {
			t.Helper()
			if b, err := tr.Backlog(t.Context()); err != nil || b.Ready != want {
				t.Errorf("the backlog is %+v, %v; want %d", b, err, want)
			}
		}
		ready(0)
		i := start(t, config(t, "0 */5 * * * *", store))
		synctest.Wait()
		i.stop()
		ready(0)
		if next, known := tr.NextDue(); !known || next.Minute() != 5 {
			t.Errorf("next is %v", next)
		}
		time.Sleep(6 * time.Minute)
		ready(1)
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
