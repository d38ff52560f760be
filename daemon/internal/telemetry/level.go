package telemetry

import "log/slog"

// ParseLevel returns the lowest level that is logged, by its name in a configuration; info for
// another name.
func ParseLevel(name string) (level slog.Level) {
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo // the configuration was checked before
	}
	return level
}
