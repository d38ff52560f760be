//go:build !linux

package record

import (
	"errors"
	"time"
)

func bootID() (string, error) { return "", errors.ErrUnsupported }

func sinceBoot() (time.Duration, error) { return 0, errors.ErrUnsupported }

func fileID(string) (string, error) { return "", errors.ErrUnsupported }
