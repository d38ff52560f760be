package table

import (
	"context"
	"fmt"

	"github.com/drover-run/drover/bench/load"

	"github.com/drover-run/drover/bench/rig"
)

// memory prints the memory of each setup, idle and with messages in flight.
func (c *Command) memory(ctx context.Context, contenders []load.Contender) error {
	fmt.Println(load.Commit(ctx))
	fmt.Printf("proportional memory (PSS), %d messages of 1 kB in flight, the medians of %d rounds, MB\n\n", load.InFlight, c.Rounds)
	fmt.Println("| setup | work | messages in flight | idle: all processes | in flight | beyond idle | most of the rounds |")
	fmt.Println("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
	for _, of := range contenders {
		for _, work := range c.Work {
			if work == load.CPU {
				continue
			}
			var idle, busy, beyond []float64
			messages := load.InFlight
			most := 0.0
			for range c.Rounds {
				m, err := load.MeasureMemory(ctx, of, work)
				if err != nil {
					return err
				}
				messages = min(messages, m.Messages)
				idle, busy = append(idle, float64(m.Idle)/1e6), append(busy, float64(m.InFlight)/1e6)
				beyond = append(beyond, float64(m.InFlight-m.Idle)/1e6)
				most = max(most, beyond[len(beyond)-1])
			}
			fmt.Printf("| %s | %s | %d | %.0f | %.0f | %.1f | %.1f |\n", of.Name, work, messages, rig.Median(idle), rig.Median(busy), rig.Median(beyond), most)
		}
	}
	return nil
}
