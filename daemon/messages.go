package daemon

import (
	"maps"
	"net/http"
	"slices"

	"github.com/drover-run/drover/daemon/internal/admin"
	"github.com/drover-run/drover/daemon/internal/api"
	"github.com/drover-run/drover/daemon/internal/produce"
)

func messageRoutes(d *Daemon) []admin.Route {
	return []admin.Route{{
		ID: "sendMessage", Method: http.MethodPost, Path: api.MessagesPattern, Help: "Send a message to a function's queue, topic or subject.",
		Params: append([]admin.Param{admin.FunctionParam}, produce.Params...), Body: "the message's body; its Content-Type becomes the property content_type",
		Response: api.Sent{}, Handler: func(w http.ResponseWriter, r *http.Request) { handleMessage(d, w, r) },
		ErrorStatuses: []int{
			http.StatusBadRequest, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusServiceUnavailable,
		},
	}}
}

func handleMessage(d *Daemon, w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if _, found := d.Config().Functions[name]; !found {
		admin.WriteNotFound(w, name, slices.Sorted(maps.Keys(d.Config().Functions)))
		return
	}
	open := d.currentResources()
	if open == nil || open.producers.Lookup(name) == nil {
		admin.WriteError(w, http.StatusServiceUnavailable, "function %s is not open yet: the daemon is starting", name)
		return
	}
	open.producers.Lookup(name).Handle(w, r)
}
