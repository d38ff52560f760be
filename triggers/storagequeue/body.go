package storagequeue

import (
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/drover-run/drover/triggers"
)

// Encoding is the encoding of a body in a message. The service stores messages as text.
type Encoding string

// The encodings. Base64 represents any bytes. Text represents the characters of XML: no control
// characters except tab and line ends. Auto reads both and writes base64; a text that
// happens to be valid base64 is decoded.
const (
	Base64 Encoding = "base64"
	Text   Encoding = "text"
	Auto   Encoding = "auto"
)

// maxText is the service's size limit of an encoded message, in bytes.
const maxText = 64 << 10

var errBase64 = errors.New("the body is not base64; if senders do not encode it, set encoding: text")

func (e Encoding) decode(text string) ([]byte, error) {
	if e == Text {
		return []byte(text), nil
	}
	body, err := base64.StdEncoding.DecodeString(text)
	switch {
	case err == nil:
		return body, nil
	case e == Auto:
		return []byte(text), nil
	}
	return nil, errBase64
}

// encode encodes a body. It returns an error if the service does not accept the result.
func (e Encoding) encode(body []byte) (string, error) {
	text := string(body)
	if e != Text {
		text = base64.StdEncoding.EncodeToString(body)
	} else if at := notXML(text); at >= 0 {
		return "", fmt.Errorf("%w: byte %d is not a character of text; set encoding: base64", triggers.ErrEncoding, at)
	}
	if len(text) > maxText {
		return "", fmt.Errorf("%w for a storage queue: %d bytes as %s; 65536 is the most, which is 48 KiB before base64", triggers.ErrTooLarge, len(text), e)
	}
	return text, nil
}

// notXML returns the index of the first character that XML cannot represent; -1 if there is none.
func notXML(text string) int {
	for at, r := range text {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(text[at:]); size == 1 {
				return at
			}
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
			return at
		}
	}
	return -1
}
