// Command bench measures drover beside its ceiling and its peers, in one run on
// one machine: figures of different runs or machines are not compared.
//
//	go run ./bench throughput   messages a second, as a part of what nats.go does without drover
//	go run ./bench latency      one message at a time, from publish to ack
//	go run ./bench allocs       allocations a message on the Go path, beyond nats.go's own
//	go run ./bench cost         what metrics that are scraped and traces that are not sampled cost the Go path
//	go run ./bench idle         processor time and memory of a daemon with nothing to do
//	go run ./bench memory       peak memory of the daemon by the bodies in flight: 600 of 1 MiB
//	go run ./bench servicebus   messages a second from the Service Bus emulator, beside the bare SDK
//	go run ./bench storagequeue messages a second from the storage queue emulator, beside the bare SDK
//	go run ./bench scale        workers and instances: how soon they come, and what their going costs
//	go run ./bench http         messages a second to an app behind HTTP, beside wrk and Go's client
//	go run ./bench reload       one function of ten is reloaded under load: what the others notice
//	go run ./bench dead         a replay of 100,000 dead letters, cut half way and started again: none twice, none left
//	go run ./bench stop         SIGTERM under load: messages handled twice, delivered again, or lost
//	go run ./bench order        messages of a key that start before an earlier one has ended, also when workers are killed
//	go run ./bench workers      how soon a worker is there, also after a kill, and what recycling costs
//	go run ./bench hostile      messages that crash, hang, block and take memory: who is charged, and what it costs the others
//	go run ./bench crashes      one crash every four seconds under load: how much of it is done in time
//	go run ./bench storm        the daemon, workers, the reaper and the broker are killed under load: messages lost or charged, orphans
//	go run ./bench timeouts     how late calls that overrun are ended: those that obey, and those that are killed
//	go run ./bench workloads    auto beside the best cell of a grid, for functions of each kind
//	go run ./bench measuring    what it costs to measure the CPU time of calls
//	go run ./bench blocked      blocks of an event loop: those that are told right, how soon, and their neighbours' latency
//	go run ./bench celery       drover's Python no-op beside Celery's, where Celery and Redis are installed
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/alecthomas/kong"
)

type commandLine struct {
	Throughput   throughputCommand   `cmd:"" help:"Messages a second, as a part of what nats.go does without drover."`
	Latency      latencyCommand      `cmd:"" help:"One message at a time, from publish to ack."`
	Allocs       allocsCommand       `cmd:"" help:"Allocations a message on the Go path, beyond nats.go's own."`
	Cost         costCommand         `cmd:"" help:"What metrics that are scraped and traces that are not sampled cost the Go path."`
	Idle         idleCommand         `cmd:"" help:"Processor time and memory of a daemon with nothing to do."`
	Memory       memoryCommand       `cmd:"" help:"Peak memory of the daemon by the bodies in flight."`
	Servicebus   serviceBusCommand   `cmd:"" help:"Messages a second from the Service Bus emulator, beside the bare SDK."`
	Storage      storageCommand      `cmd:"" name:"storagequeue" help:"Messages a second from the storage queue emulator, beside the bare SDK."`
	Scale        scaleCommand        `cmd:"" help:"Workers and instances: how soon they come, and what their going costs."`
	Reload       reloadCommand       `cmd:"" help:"One function of ten is reloaded under load: what the others notice."`
	HTTP         httpCommand         `cmd:"" name:"http" help:"Messages a second to an app behind HTTP, beside wrk (Debian: wrk) and Go's client."`
	Dead         deadCommand         `cmd:"" help:"A replay of dead letters that is cut half way and started again: none twice, none left."`
	Stop         stopCommand         `cmd:"" help:"SIGTERM under load: messages handled twice, delivered again, or lost."`
	Workers      workersCommand      `cmd:"" help:"How soon a worker is there, from a template and without, also after a kill; and what recycling costs."`
	Order        orderCommand        `cmd:"" help:"Messages of an ordering key that start before an earlier one has ended, in runs with and without kills of workers."`
	Storm        stormCommand        `cmd:"" help:"Kill the daemon, workers, the reaper and the broker under load: messages lost or charged, orphans."`
	Hostile      hostileCommand      `cmd:"" help:"Messages that crash, hang, block the event loop and exceed memory: who is charged, and the throughput of the others."`
	Crashes      crashesCommand      `cmd:"" help:"One crash every four seconds under a steady load: what is done when sending ends."`
	Timeouts     timeoutsCommand     `cmd:"" help:"How late calls that overrun are ended: those that obey, and those that are killed."`
	Workloads    workloadsCommand    `cmd:"" help:"Auto beside the best cell of a grid of processes, threads and coroutines, for functions of each kind."`
	Measuring    measuringCommand    `cmd:"" help:"What it costs to measure the CPU time of calls: the Python no-op with measuring and without."`
	Blocked      blockedCommand      `cmd:"" help:"Blocks of an event loop: how many are told right, how soon; and what isolation does for the functions beside."`
	Celery       celeryCommand       `cmd:"" help:"drover's Python no-op beside Celery's (Debian: celery, redis-server)."`
	MemoryDaemon memoryDaemonCommand `cmd:"" name:"memory-daemon" hidden:"" help:"The daemon of memory."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	var line commandLine
	parsed := kong.Parse(&line, kong.Name("bench"), kong.BindTo(ctx, (*context.Context)(nil)))
	err := parsed.Run()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
