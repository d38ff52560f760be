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
	fmt.Println("| setup | work | idle: all processes | in flight | beyond idle | most of the rounds |")
	fmt.Println("| --- | --- | ---: | ---: | ---: | ---: |")
	for _, of := range contenders {
		for _, work := range c.Work {
			if work == load.CPU {
				continue
			}
			var idle, busy, beyond []float64
			most := 0.0
			for range c.Rounds {
				m, err := load.MeasureMemory(ctx, of, work)
				if err != nil {
					return err
				}
				idle, busy = append(idle, float64(m.Idle)/1e6), append(busy, float64(m.InFlight)/1e6)
				beyond = append(beyond, float64(m.InFlight-m.Idle)/1e6)
				most = max(most, beyond[len(beyond)-1])
			}
			fmt.Printf("| %s | %s | %.0f | %.0f | %.0f | %.0f |\n", of.Name, work, rig.Median(idle), rig.Median(busy), rig.Median(beyond), most)
		}
	}
	return nil
}
