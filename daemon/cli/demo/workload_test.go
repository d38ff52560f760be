package demo

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"testing"

	"github.com/drover-run/drover/triggers"
)

// Each pixel of the smaller picture is the average of the pixels that it covers.
func TestScaleDown(t *testing.T) {
	from := image.NewRGBA(image.Rect(0, 0, 5, 2))
	for x := range 5 {
		from.SetRGBA(x, 0, color.RGBA{uint8(10 * x), 0, 0, 255})
		from.SetRGBA(x, 1, color.RGBA{uint8(10*x + 4), 100, 0, 255})
	}
	to := image.NewRGBA(image.Rect(0, 0, 2, 1))
	scaleDown(to, from)
	for x, want := range []color.RGBA{{7, 50, 0, 255}, {32, 50, 0, 255}} {
		if got := to.RGBAAt(x, 0); got != want {
			t.Errorf("pixel %d is %v, want %v", x, got, want)
		}
	}
	larger := image.NewRGBA(image.Rect(0, 0, 7, 3))
	scaleDown(larger, to)
	if got := larger.RGBAAt(6, 2); got != to.RGBAAt(1, 0) {
		t.Errorf("the last pixel of a larger picture is %v, want %v", got, to.RGBAAt(1, 0))
	}
}

func TestThumbnail(t *testing.T) {
	out, err := makeThumbnail(t.Context(), &triggers.Message{Body: []byte(`{"width": 640, "height": 480, "seed": 3}`)})
	if err != nil {
		t.Fatal(err)
	}
	thumbnail, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil || thumbnail.Bounds().Dx() != 160 || thumbnail.Bounds().Dy() != 120 {
		t.Errorf("the thumbnail is %v: %v", thumbnail.Bounds(), err)
	}
	for _, body := range []string{"?", `{"width": 0, "height": 480}`, `{"width": 640, "height": 5000}`} {
		if _, err := makeThumbnail(t.Context(), &triggers.Message{Body: []byte(body)}); err == nil {
			t.Errorf("%s made a thumbnail", body)
		}
	}
}
