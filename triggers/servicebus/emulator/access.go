package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Key is a shared access key of the namespace.
type Key struct {
	Name, Key            string
	Listen, Send, Manage bool
}

// claim is a right, by the service's own name.
type claim string

const (
	claimListen claim = "Listen"
	claimSend   claim = "Send"
	claimManage claim = "Manage"
)

// rights are the rights from a connection's tokens, by entity.
type rights map[string]*Key

func (k *Key) may(what claim) bool {
	return k.Manage || what == claimListen && k.Listen || what == claimSend && k.Send
}

// allow reports whether an operation on an entity is allowed.
func (r rights) allow(path string, what claim) bool {
	name := strings.ToLower(strings.TrimSuffix(path, "/$management"))
	for {
		if k := r[name]; k != nil {
			return k.may(what)
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			k := r[""]
			return k != nil && k.may(what)
		}
		name = name[:i]
	}
}

// checkSAS returns the key that signed a shared access signature.
func checkSAS(token string, keys []Key, now time.Time) (*Key, error) {
	text, found := strings.CutPrefix(token, "SharedAccessSignature ")
	if !found {
		return nil, errToken
	}
	fields := make(map[string]string)
	for pair := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		fields[name] = value
	}
	name, err := url.QueryUnescape(fields["skn"])
	if err != nil {
		return nil, errToken
	}
	signature, err := url.QueryUnescape(fields["sig"])
	if err != nil {
		return nil, errToken
	}
	for i := range keys {
		if keys[i].Name != name {
			continue
		}
		mac := hmac.New(sha256.New, []byte(keys[i].Key))
		mac.Write([]byte(fields["sr"] + "\n" + fields["se"]))
		if !hmac.Equal([]byte(signature), []byte(base64.StdEncoding.EncodeToString(mac.Sum(nil)))) {
			return nil, errToken
		}
		if until, err := strconv.ParseInt(fields["se"], 10, 64); err != nil || now.Unix() >= until {
			return nil, errExpired
		}
		return &keys[i], nil
	}
	return nil, errToken
}

var (
	errToken   = errors.New("InvalidSignature: The token has an invalid signature")
	errExpired = errors.New("ExpiredToken: The token is expired")
)
