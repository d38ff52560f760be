package peers

import (
	"encoding/json"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/drover-run/drover/bench/load"
	"github.com/drover-run/drover/bench/work"

	"github.com/drover-run/drover/bench/rig"
)

// peer is one other system, with its settings.
type peer struct {
	name     string
	language string // python or go
	broker   string // nats, redis or postgres
	packages []string
	settings string  // for the table
	fastest  float64 // more messages a second than it can handle
	kinds    []string
	// command is what runs functions: a program of the virtual environment, or arguments of
	// gopeers; and variables for its app.
	command func(c load.Cell) (args, env []string)
	// next makes messages for NATS. Others are sent by the peer's own client.
	next func(size int) func() *nats.Msg
}

func variable(name string, value int) string { return name + "=" + strconv.Itoa(value) }

var all = []peer{
	{
		name: "FastStream", language: "python", broker: "nats", packages: []string{"faststream", "nats-py", "uvloop"}, fastest: 15_000,
		settings: "2 workers, uvloop, PullSub batch 200, no_reply, max_ack_pending 20,000; async handler; waits: 500 threads each; awaits: max_workers 2,000 each",
		kinds:    []string{load.CPU, load.Wait, load.Awaits},
		command: func(c load.Cell) (args, env []string) {
			workers, function := 1, "async"
			switch {
			case c.Waits() && c.Work == load.Wait:
				workers, function = 500, "sync"
			case c.Waits():
				workers = 2000
			}
			return []string{"faststream", "run", "faststream_app:app", "--workers", "2", "--log-level", "warning"},
				[]string{"PEER_FUNCTION=" + function, variable("PEER_WORKERS", workers)}
		},
		next: func(size int) func() *nats.Msg {
			return func() *nats.Msg {
				return &nats.Msg{Subject: load.Subject, Header: nats.Header{"content-type": []string{"text/plain"}}, Data: work.Body(size)}
			}
		},
	},
	{
		name: "taskiq", language: "python", broker: "nats", packages: []string{"taskiq", "taskiq-nats", "nats-py"}, fastest: 10_000,
		settings: "2 workers, pull consumer, batch 100 (1 at 50/s), --no-parse, prefetch 200; CPU: 1 thread each; waits: 500 threads each; awaits: 2,000 async tasks each",
		kinds:    []string{load.CPU, load.Wait, load.Awaits},
		command: func(c load.Cell) (args, env []string) {
			tasks, threads, function := 200, 1, "async"
			switch {
			case c.Waits() && c.Work == load.Wait:
				tasks, threads, function = 500, 500, "sync"
			case c.Waits():
				tasks = 2000
			case c.Time > 0:
				tasks, function = 100, "sync"
			}
			return []string{
					"taskiq", "worker", "taskiq_app:broker", "--workers", "2", "--no-parse", "--log-level", "WARNING",
					"--max-async-tasks", strconv.Itoa(tasks), "--max-prefetch", "200", "--max-threadpool-threads", strconv.Itoa(threads),
				},
				[]string{"PEER_FUNCTION=" + function, variable("PEER_BATCH", rig.Pick(c.Rate == 0, 100, 1))}
		},
		next: func(size int) func() *nats.Msg {
			n := 0
			return func() *nats.Msg {
				n++
				text, err := json.Marshal(map[string]any{
					"task_id": strconv.Itoa(n), "task_name": "job", "labels": map[string]any{}, "labels_types": map[string]any{},
					"args": []string{string(work.Body(size))}, "kwargs": map[string]any{},
				})
				if err != nil {
					panic(err) // strings alone
				}
				return &nats.Msg{Subject: load.Subject, Data: text}
			}
		},
	},
	{
		name: "Dramatiq", language: "python", broker: "redis", packages: []string{"dramatiq", "redis"}, fastest: 10_000,
		settings: "2 processes × 4 threads (waits: 2 × 500), dramatiq_queue_prefetch 500, no middleware but retries",
		kinds:    []string{load.CPU, load.Wait},
		command: func(c load.Cell) (args, env []string) {
			return []string{"dramatiq", "dramatiq_app", "--processes", "2", "--threads", strconv.Itoa(rig.Pick(c.Waits(), 500, 4))},
				[]string{"dramatiq_queue_prefetch=500"}
		},
	},
	{
		name: "Huey", language: "python", broker: "redis", packages: []string{"huey", "redis"}, fastest: 7_000,
		settings: "2 processes (waits: 200 threads), no results",
		kinds:    []string{load.CPU, load.Wait},
		command: func(c load.Cell) (args, env []string) {
			if c.Waits() {
				return []string{"huey_consumer", "huey_app.huey", "-k", "thread", "-w", "200", "-n", "-q"}, nil
			}
			return []string{"huey_consumer", "huey_app.huey", "-k", "process", "-w", "2", "-n", "-q"}, nil
		},
	},
	{
		name: "Celery", language: "python", broker: "redis", packages: []string{"celery", "redis"}, fastest: 2_000,
		settings: "prefork 2 (waits: 200 threads), acks_late, ignore_result, prefetch 64, no gossip, mingle, heartbeat, events",
		kinds:    []string{load.CPU, load.Wait},
		command: func(c load.Cell) (args, env []string) {
			return []string{
				"celery", "-A", "celery_app", "worker", "--pool", rig.Pick(c.Waits(), "threads", "prefork"), "--concurrency", strconv.Itoa(rig.Pick(c.Waits(), 200, 2)),
				"--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING",
			}, []string{"C_FORCE_ROOT=1"}
		},
	},
	{
		name: "Watermill", language: "go", broker: "nats", packages: []string{"ThreeDotsLabs/watermill", "ThreeDotsLabs/watermill-nats/v2"}, fastest: 200_000,
		settings: "4 subscribers of one consumer (waits: 500, PullMaxMessages 2), AckAsync, MaxAckPending 20,000",
		kinds:    []string{load.CPU, load.Awaits},
		command: func(c load.Cell) (args, env []string) {
			return []string{"watermill"}, []string{variable("PEER_WORKERS", rig.Pick(c.Waits(), 500, 4)), variable("PEER_BATCH", rig.Pick(c.Waits(), 2, 500))}
		},
		next: load.BodyMessages,
	},
	{
		name: "River", language: "go", broker: "postgres", packages: []string{"riverqueue/river", "jackc/pgx/v5"}, fastest: 30_000,
		settings: "1,000 workers (CPU: 2; waits: 10,000), fetch cooldown 2 ms, poll 20 ms; PostgreSQL with fsync",
		kinds:    []string{load.CPU, load.Awaits},
		command: func(c load.Cell) (args, env []string) {
			workers := 1000
			switch {
			case c.Waits():
				workers = 10_000
			case c.Time > 0:
				workers = 2
			}
			return []string{"river"}, []string{variable("PEER_WORKERS", workers)}
		},
	},
}
