package decode

import "reflect"

// CopyKinds replaces the targets of a struct's pointers by copies, so that completing them does not
// change the originals. It returns the copies.
func CopyKinds(of any) (copies []any) {
	v := reflect.ValueOf(of).Elem()
	for i := range v.NumField() {
		if p := v.Field(i); p.Kind() == reflect.Pointer && !p.IsNil() {
			own := reflect.New(p.Type().Elem())
			own.Elem().Set(p.Elem())
			p.Set(own)
			copies = append(copies, own.Interface())
		}
	}
	return copies
}
