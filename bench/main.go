// Command bench measures drover beside its ceiling and its peers, in one run on
// one machine: figures of different runs or machines are not compared.
//
//	go run ./bench table        messages a second, CPU time, system calls and latency, by work, size and load
//	go run ./bench peers        drover beside FastStream, taskiq, Dramatiq, Huey, Celery, Watermill and River, those that are installed
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
//	go run ./bench requests     what a request costs in the server of HTTP functions, beyond a bare net/http server, with wrk
//	go run ./bench reload       one function of ten is reloaded under load: what the others notice
//	go run ./bench dead         a replay of 100,000 dead letters, cut half way and started again: none twice, none left
//	go run ./bench stop         SIGTERM under load: messages handled twice, delivered again, or lost
//	go run ./bench order        messages of a key that start before an earlier one has ended, also when workers are killed
//	go run ./bench workers      how soon a worker is there, also after a kill, and what recycling costs
//	go run ./bench kills        how soon the messages of a killed worker run again, with a spare worker, with a template, and without
//	go run ./bench hostile      messages that crash, hang, block and take memory: whose attempts are used, and the cost for others
//	go run ./bench crashes      one crash every four seconds under load: how much of it is done in time
//	go run ./bench storm        the daemon, workers, the reaper and the broker are killed under load: messages lost or charged, orphans
//	go run ./bench timeouts     how late calls end after their timeout: those that obey it, and those that are killed
//	go run ./bench timers       timers in several daemons, one of which is killed again and again: occurrences missed, late and repeated
//	go run ./bench workloads    auto beside the best cell of a grid, for functions of each kind
//	go run ./bench measuring    what it costs to measure the CPU time of calls
//	go run ./bench blocked      blocks of an event loop: correct reports, their delay, and the neighbours' latency
//	go run ./bench functionapps functions of Azure Functions apps, beside plain ones and Azure's own workers
//	go run ./bench waiting      messages of a function that blocks that a worker has and does not run
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/alecthomas/kong"

	"github.com/drover-run/drover/bench/azure"
	"github.com/drover-run/drover/bench/faults"
	"github.com/drover-run/drover/bench/load"
	"github.com/drover-run/drover/bench/peers"
	"github.com/drover-run/drover/bench/pools"
	"github.com/drover-run/drover/bench/speed"
	"github.com/drover-run/drover/bench/table"
	"github.com/drover-run/drover/bench/workloads"
)

type commandLine struct {
	Table          table.Command               `cmd:"" help:"Measure messages a second, and CPU time, system calls and context switches of a message, by work, size and load."`
	Peers          peers.Command               `cmd:"" help:"Measure drover beside other systems that are installed, in turns."`
	Throughput     speed.ThroughputCommand     `cmd:"" help:"Measure messages a second, relative to nats.go without drover."`
	Latency        speed.LatencyCommand        `cmd:"" help:"Measure the latency of single messages, from publish to acknowledgement."`
	Allocs         speed.AllocsCommand         `cmd:"" help:"Measure allocations per message on the Go path, beyond nats.go's own."`
	Cost           speed.CostCommand           `cmd:"" help:"Measure the cost of scraped metrics and unsampled traces on the Go path."`
	Idle           speed.IdleCommand           `cmd:"" help:"Measure CPU time and memory of an idle daemon."`
	Memory         speed.MemoryCommand         `cmd:"" help:"Measure the daemon's peak memory relative to the bodies in flight."`
	Servicebus     azure.ServiceBusCommand     `cmd:"" help:"Measure messages a second from the Service Bus emulator, compared with the bare SDK."`
	Storage        azure.StorageCommand        `cmd:"" name:"storagequeue" help:"Measure messages a second from the storage queue emulator, compared with the bare SDK."`
	Scale          pools.ScaleCommand          `cmd:"" help:"Measure how fast workers and instances scale out, and the cost of scale-in."`
	Reload         faults.ReloadCommand        `cmd:"" help:"Reload one of ten functions under load, and measure the effect on the others."`
	HTTP           speed.HTTPCommand           `cmd:"" name:"http" help:"Measure messages a second to an HTTP app, compared with wrk (Debian: wrk) and Go's client."`
	Dead           faults.DeadCommand          `cmd:"" help:"Interrupt a replay of dead letters and start it again: none twice, none left."`
	Stop           faults.StopCommand          `cmd:"" help:"Stop under load with SIGTERM: count messages handled twice, redelivered, or lost."`
	Workers        pools.WorkersCommand        `cmd:"" help:"Measure the start of workers, with and without a template and after a kill, and the cost of recycling."`
	Order          faults.OrderCommand         `cmd:"" help:"Count messages of an ordering key that start before an earlier one has ended, with and without kills of workers."`
	Storm          faults.StormCommand         `cmd:"" help:"Kill the daemon, workers, the reaper and the broker under load: count lost messages, used attempts, orphans."`
	Kills          pools.KillsCommand          `cmd:"" help:"Kill workers with messages in flight, and measure how soon these run again: with a spare worker, with a template, and without."`
	Hostile        faults.HostileCommand       `cmd:"" help:"Send messages that crash, hang, block the event loop and exceed memory: check which use attempts, and the throughput of the others."`
	Crashes        faults.CrashesCommand       `cmd:"" help:"Crash a worker every four seconds under a steady load: count the messages done when sending ends."`
	Timeouts       pools.TimeoutsCommand       `cmd:"" help:"Measure how late calls end after their timeout, cancelled or killed."`
	Timers         faults.TimersCommand        `cmd:"" help:"Run timers in several daemons, and kill one every few seconds: count missed, late and repeated occurrences."`
	Workloads      workloads.Command           `cmd:"" help:"Compare auto with the best cell of a grid of processes, threads and coroutines, for functions of each kind."`
	Measuring      pools.MeasuringCommand      `cmd:"" help:"Measure the cost of measuring the CPU time of calls, with the Python no-op."`
	Blocked        pools.BlockedCommand        `cmd:"" help:"Block event loops: count correct reports, measure their delay and the effect of isolation on other functions."`
	FunctionApps   azure.FunctionAppsCommand   `cmd:"" name:"functionapps" help:"Compare functions of Azure Functions apps with plain ones and with Azure's own workers, and measure the start of an app."`
	Waiting        pools.WaitingCommand        `cmd:"" help:"Block in a Python function with a full queue: count messages that wait inside a worker."`
	TimersDaemon   faults.TimersDaemonCommand  `cmd:"" name:"timers-daemon" hidden:"" help:"Run a daemon of timers."`
	MemoryDaemon   speed.MemoryDaemonCommand   `cmd:"" name:"memory-daemon" hidden:"" help:"Run the daemon of memory."`
	Daemon         load.DaemonCommand          `cmd:"" hidden:"" help:"Run the daemon of table."`
	NATSServer     load.ServerCommand          `cmd:"" name:"nats-server" hidden:"" help:"Run a NATS server."`
	Requests       speed.RequestsCommand       `cmd:"" help:"Measure the CPU time of a request to an HTTP function beyond that of a bare net/http server (Debian: wrk)."`
	RequestsDaemon speed.RequestsDaemonCommand `cmd:"" name:"requests-daemon" hidden:"" help:"Answer the requests of requests."`
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
