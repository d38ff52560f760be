package emulator

import (
	"net/http"
	"regexp"
)

// failure is an error response.
type failure struct {
	status  int
	code    string
	message string
}

var (
	errQueueNotFound   = &failure{http.StatusNotFound, "QueueNotFound", "The specified queue does not exist."}
	errQueueExists     = &failure{http.StatusConflict, "QueueAlreadyExists", "The specified queue already exists."}
	errMessageNotFound = &failure{http.StatusNotFound, "MessageNotFound", "The specified message does not exist."}
	errReceipt         = &failure{http.StatusBadRequest, "PopReceiptMismatch", "The specified pop receipt did not match the pop receipt for a dequeued message."}
	errTooLarge        = &failure{http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", "The request body is too large and exceeds the maximum permissible limit."}
	errXML             = &failure{http.StatusBadRequest, "InvalidXmlDocument", "XML specified is not syntactically valid."}
	errName            = &failure{http.StatusBadRequest, "InvalidResourceName", "The specified resource name contains invalid characters."}
	errNameLength      = &failure{http.StatusBadRequest, "OutOfRangeInput", "The specified resource name length is not within the permissible limits."}
	errVerb            = &failure{http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "The resource does not support the specified HTTP verb, or the emulator not this operation."}
	errURI             = &failure{http.StatusBadRequest, "InvalidUri", "The requested URI does not represent any resource on the server."}
)

func outOfRange(name string) *failure {
	return &failure{http.StatusBadRequest, "OutOfRangeQueryParameterValue", "One of the query parameters specified in the request URI is outside the permissible range: " + name + "."}
}

func invalid(name string) *failure {
	return &failure{http.StatusBadRequest, "InvalidQueryParameterValue", "Value for one of the query parameters specified in the request URI is invalid: " + name + "."}
}

var nameForm = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func validName(name string) bool { return checkName(name) == nil }

func checkName(name string) *failure {
	if len(name) < 3 || len(name) > 63 {
		return errNameLength
	}
	if !nameForm.MatchString(name) {
		return errName
	}
	return nil
}
