package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// field is one field of an expression.
type field struct {
	name     string
	min, max int
	values   []string // the names of the values, from min on; nil: numbers only
}

var fields = []field{
	{"second", 0, 59, nil},
	{"minute", 0, 59, nil},
	{"hour", 0, 23, nil},
	{"day", 1, 31, nil},
	{"month", 1, 12, []string{"January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"}},
	{"day of the week", 0, 6, []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}},
}

// bothDays makes robfig/cron require both the day of the month and the day of the week.
const bothDays = 1 << 63

// macros are what other crons have and NCRONTAB has not, in its own form.
var macros = map[string]string{
	"@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
	"@daily": "0 0 0 * * *", "@midnight": "0 0 0 * * *", "@hourly": "0 0 * * * *",
}

// parseCron parses an expression. every is set for an interval, as opposed to a point in time.
func parseCron(text string) (spec *cron.SpecSchedule, every bool, notes []string, err error) {
	texts := strings.Fields(text)
	switch {
	case len(texts) == 0:
		return nil, false, nil, errors.New("it is empty; write 0 */5 * * * * for every five minutes")
	case strings.HasPrefix(texts[0], "TZ=") || strings.HasPrefix(texts[0], "CRON_TZ="):
		return nil, false, nil, errors.New("it names a time zone; set timezone instead")
	case strings.HasPrefix(texts[0], "@"):
		if same := macros[strings.ToLower(texts[0])]; same != "" && len(texts) == 1 {
			return nil, false, nil, fmt.Errorf("NCRONTAB has no %s; write %s", texts[0], same)
		}
		return nil, false, nil, fmt.Errorf("NCRONTAB has no %s; write a time span, such as 00:05:00, or an expression, such as 0 */5 * * * *", texts[0])
	case len(texts) == len(fields)-1:
		texts = append([]string{"0"}, texts...)
	case len(texts) != len(fields):
		return nil, false, nil, fmt.Errorf("it has %d fields; write {second} {minute} {hour} {day} {month} {day of the week}, where the second may be omitted, or a time span, such as 00:05:00", len(texts))
	}
	spec = &cron.SpecSchedule{Location: time.UTC}
	for i, set := range []*uint64{&spec.Second, &spec.Minute, &spec.Hour, &spec.Dom, &spec.Month, &spec.Dow} {
		values, more, err := fields[i].parse(texts[i])
		if err != nil {
			return nil, false, nil, fmt.Errorf("%s: %w", fields[i].name, err)
		}
		*set = values
		notes = append(notes, more...)
	}
	spec.Dom |= bothDays
	return spec, strings.ContainsAny(texts[0]+texts[1]+texts[2], "*/-"), notes, nil
}

// parse returns the values of a field as bits, and notes about ranges that it has swapped.
func (f field) parse(text string) (set uint64, notes []string, err error) {
	for part := range strings.SplitSeq(text, ",") {
		values, note, err := f.parsePart(part)
		if err != nil {
			return 0, nil, err
		}
		set |= values
		if note != "" {
			notes = append(notes, note)
		}
	}
	return set, notes, nil
}

// parsePart parses one part of a list: *, a value or a range, and the step behind it.
func (f field) parsePart(text string) (set uint64, note string, err error) {
	values, stepText, stepped := strings.Cut(text, "/")
	step := 1
	if stepped {
		if step, err = strconv.Atoi(stepText); err != nil || values == "" {
			return 0, "", fmt.Errorf("%q is not a step; write */5, 10/5 or 10-30/5", text)
		}
		step = max(step, 1)
	}
	first, last, ranged := strings.Cut(values, "-")
	from, to := f.min, f.max
	switch {
	case values == "*":
	case ranged && first != "":
		if from, err = f.value(first); err == nil {
			to, err = f.value(last)
		}
		if from > to {
			from, to = to, from
			note = fmt.Sprintf("the %s %s is the range from %s to %s: NCRONTAB swaps the ends, and does not pass the end of the %s", f.name, values, last, first, f.cycle())
		}
	default:
		from, err = f.value(values)
		if !stepped {
			to = from
		}
	}
	for v := from; err == nil && v <= to; v += step {
		set |= 1 << v
	}
	return set, note, err
}

// cycle returns the values of a field in order.
func (f field) cycle() string {
	return map[string]string{"second": "minute", "minute": "hour", "hour": "day", "day": "month", "month": "year", "day of the week": "week"}[f.name]
}

// value parses a number or a name.
func (f field) value(text string) (int, error) {
	if text == "" {
		return 0, errors.New("a value is missing")
	}
	if text[0] >= '0' && text[0] <= '9' {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q is not a number%s", text, hintFor(text))
		case n == 7 && f.max == 6:
			return 0, errors.New("7 is not a day of the week; Sunday is 0")
		case n < f.min || n > f.max:
			return 0, fmt.Errorf("%d is not between %d and %d", n, f.min, f.max)
		}
		return n, nil
	}
	for i, name := range f.values {
		if len(text) <= len(name) && strings.EqualFold(name[:len(text)], text) {
			return f.min + i, nil
		}
	}
	if hint := hintFor(text); hint != "" {
		return 0, fmt.Errorf("%q is not in NCRONTAB%s", text, hint)
	}
	if f.values == nil {
		return 0, fmt.Errorf("%q is not a number between %d and %d", text, f.min, f.max)
	}
	return 0, fmt.Errorf("%q is not one of %s, nor the beginning of one", text, strings.Join(f.values, ", "))
}

// hintFor returns what to write instead of what other crons have.
func hintFor(text string) string {
	switch {
	case text == "?":
		return "; write *"
	case strings.ContainsRune(text, '#'):
		return "; for the second Monday of a month, write the days 8-14 and the day of the week 1"
	case strings.HasSuffix(strings.ToUpper(text), "W"):
		return "; there is no nearest weekday: check the date in the function"
	case strings.HasSuffix(strings.ToUpper(text), "L"):
		return "; there is no last day: write the days 28-31, and check the date in the function"
	}
	return ""
}

// parseSpan parses [d.]hh:mm[:ss[.fraction]].
func parseSpan(text string) (time.Duration, error) {
	malformed := errors.New("this is not a time span; write hours, minutes and seconds, such as 00:05:00, or with days, 1.00:00:00")
	var days int
	clock := text
	if before, after, found := strings.Cut(text, "."); found && !strings.ContainsRune(before, ':') {
		n, err := strconv.ParseUint(before, 10, 31)
		if err != nil {
			return 0, malformed
		}
		days, clock = int(n), after
	}
	const maxDays = 100 * 366 // far below the maximum of a Duration
	if days > maxDays {
		return 0, fmt.Errorf("%d days is more than %d", days, maxDays)
	}
	parts := strings.Split(clock, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, malformed
	}
	span := time.Duration(days) * 24 * time.Hour
	for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second}[:len(parts)] {
		whole, fraction, found := strings.Cut(parts[i], ".")
		n, err := strconv.ParseUint(whole, 10, 31)
		if err != nil || found && (i < 2 || fraction == "") {
			return 0, malformed
		}
		if limit := []uint64{24, 60, 60}[i]; n >= limit {
			unitName := []string{"hours", "minutes", "seconds"}[i]
			return 0, fmt.Errorf("it has %d %s, and at most %d are allowed; write a day as 1.00:00:00, and an hour as 01:00:00", n, unitName, limit-1)
		}
		span += time.Duration(n) * unit
		if found {
			part, err := time.ParseDuration("0." + fraction + "s")
			if err != nil {
				return 0, malformed
			}
			span += part
		}
	}
	if span <= 0 {
		return 0, errors.New("the time span is 0; the timer would never rest")
	}
	return span, nil
}
