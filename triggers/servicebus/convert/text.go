package convert

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/Azure/go-amqp"
	"github.com/google/uuid"
)

// Text returns the documented text form of an AMQP value: a string unchanged, any other value as
// JSON, without quotes. Types without a JSON form: a time is RFC 3339, bytes are base64, a
// UUID has dashes, and the keys of a map are their text forms.
func Text(value any) string {
	switch v := jsonOf(value).(type) {
	case string:
		return v
	case nil:
		return "null"
	case bool:
		return strconv.FormatBool(v)
	default:
		out, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(value)
		}
		return string(out)
	}
}

// jsonOf converts an AMQP value to a type of JSON.
func jsonOf(value any) any {
	switch v := value.(type) {
	case nil, string, bool:
		return v
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case amqp.UUID:
		return uuid.UUID(v).String()
	case amqp.Symbol:
		return string(v)
	case float32:
		return jsonFloat(float64(v), 32)
	case float64:
		return jsonFloat(v, 64)
	}
	switch r := reflect.ValueOf(value); r.Kind() {
	case reflect.Slice, reflect.Array:
		out := make([]any, r.Len())
		for i := range out {
			out[i] = jsonOf(r.Index(i).Interface())
		}
		return out
	case reflect.Map:
		out := make(map[string]any, r.Len())
		for each := r.MapRange(); each.Next(); {
			out[Text(each.Key().Interface())] = jsonOf(each.Value().Interface())
		}
		return out
	case reflect.Pointer:
		if r.IsNil() {
			return nil
		}
		return jsonOf(r.Elem().Interface())
	case reflect.Struct:
		return jsonOfDescribed(r)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Int, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return value
	}
	return fmt.Sprint(value)
}

func jsonFloat(f float64, bits int) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.FormatFloat(f, 'g', -1, bits)
	}
	return json.Number(strconv.FormatFloat(f, 'g', -1, bits))
}

// The described types of .NET's SDK; both count 100 ns.
const (
	timeSpan       = "com.microsoft:timespan"
	dateTimeOffset = "com.microsoft:datetime-offset"
	ticksTo1970    = 621_355_968_000_000_000
)

// jsonOfDescribed converts the value of a described type, whose Go type is unexported.
func jsonOfDescribed(r reflect.Value) any {
	descriptor, value := r.FieldByName("Descriptor"), r.FieldByName("Value")
	if !descriptor.IsValid() || !value.IsValid() || !descriptor.CanInterface() || !value.CanInterface() {
		return fmt.Sprint(r.Interface())
	}
	if ticks, ok := value.Interface().(int64); ok {
		switch Text(descriptor.Interface()) {
		case timeSpan:
			return spanText(ticks)
		case dateTimeOffset:
			ticks -= ticksTo1970
			return time.Unix(ticks/1e7, ticks%1e7*100).UTC().Format(time.RFC3339Nano)
		}
	}
	return jsonOf(value.Interface())
}

// spanText writes a time span as .NET does, [-][d.]hh:mm:ss[.fffffff]. A tick is 100 ns.
func spanText(ticks int64) string {
	d, sign := ticks, ""
	if d < 0 {
		sign, d = "-", -d
	}
	out := fmt.Sprintf("%02d:%02d:%02d", d/36e9%24, d/6e8%60, d/1e7%60)
	if days := d / 864e9; days > 0 {
		out = fmt.Sprintf("%d.%s", days, out)
	}
	if rest := d % 1e7; rest > 0 {
		out += fmt.Sprintf(".%07d", rest)
	}
	return sign + out
}
