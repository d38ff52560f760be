package worker

import (
	"math"
	"testing"
	"time"

	"github.com/drover-run/drover/handlers/workers/protocol"
)

func TestSpreadOfCalls(t *testing.T) {
	var m Measures
	for _, c := range []struct{ took, cpu time.Duration }{{100 * time.Millisecond, 50 * time.Millisecond}, {time.Second, time.Second}, {0, 0}} {
		m.addAnswer(protocol.Reply{Took: c.took, CPU: c.cpu, Held: c.took, Measured: true}, 0)
	}
	m.addAnswer(protocol.Reply{Took: time.Hour}, 0) // not measured
	log := math.Log(0.05)
	tiny := math.Log(1e-6)
	want := Spread{log + tiny, log*log + tiny*tiny, 0.05*0.5 + 1}
	if s := m.Spread; m.Measured != 3 || math.Abs(s.Log-want.Log) > 1e-9 || math.Abs(s.LogSquares-want.LogSquares) > 1e-9 || math.Abs(s.Shares-want.Shares) > 1e-9 {
		t.Errorf("%+v, want %+v", m, want)
	}
	sum := SumOf([]Measures{m}, []Measures{m})[0]
	if math.Abs(sum.Spread.Shares-2*want.Shares) > 1e-9 {
		t.Errorf("%+v", sum)
	}
}

func TestDelaysOfCalls(t *testing.T) {
	var m Measures
	m.Examined.addDelays(protocol.CallDelays{0, 50, 20, 10, 5, 8})
	m.Examined.addDelays(protocol.CallDelays{0, 50, 20, 10, 5, 8})
	const us = time.Microsecond
	if want := (Examined{100 * us, 40 * us, 20 * us, 10 * us, 16 * us}); m.Examined != want {
		t.Errorf("%+v, want %+v", m.Examined, want)
	}
}

func TestDelaysThatContradictEachOther(t *testing.T) {
	for text, fine := range map[string]bool{
		`{"delays_us":[[0,50,20,10,5,8]]}`:                           true,
		`{"delays_us":[[0,50,20,20,5,10]]}`:                          true,
		`{"delays_us":[[0,50,20,20,5,11]]}`:                          false,
		`{"delays_us":[[0,50,20,10,9,8]]}`:                           false,
		`{"delays_us":[[-1,50,20,10,5,8]]}`:                          false,
		`{"delays_us":[[0,9223372036854775807,0,0,0,0]]}`:            false,
		`{"delays_us":[[0,50,9223372036854775807,1,0,0]]}`:           false,
		`{"delays_us":[[0,864000000000,864000000000,0,0,0],[1,-1]]}`: false,
	} {
		var s protocol.StatsFrame
		if err := protocol.DecodeFrame(protocol.Stats, []byte(text), &s); (err == nil) != fine {
			t.Errorf("%s: %v", text, err)
		}
	}
}
