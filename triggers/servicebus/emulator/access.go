package emulator

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strconv"
	"strings"
	"time"
)

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
