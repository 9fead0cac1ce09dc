package tega

import (
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

// receive reads the next message: a text. It ends the connection where the other end sends what is
// none, which the library leaves to its user.
func receive(socket *websocket.Conn) ([]byte, error) {
	kind, from, err := socket.NextReader()
	if err == nil && kind != websocket.TextMessage {
		return nil, hangUp(socket, websocket.CloseUnsupportedData, "messages are text")
	}
	var text []byte
	if err == nil {
		text, err = io.ReadAll(from)
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		return nil, hangUp(socket, websocket.CloseMessageTooBig, "the message is too large")
	}
	if err == nil && !utf8.Valid(text) {
		return nil, hangUp(socket, websocket.CloseInvalidFramePayloadData, "it is not UTF-8")
	}
	return text, err
}

// hangUp says why a connection ends. The error is that, whether the other end hears it or not.
func hangUp(socket *websocket.Conn, code int, why string) error {
	message := websocket.FormatCloseMessage(code, why)
	until := time.Now().Add(farewell)
	err := socket.WriteControl(websocket.CloseMessage, message, until)
	if err != nil && !errors.Is(err, websocket.ErrCloseSent) {
		return fmt.Errorf("what came is no message: %s: %w", why, err)
	}
	return fmt.Errorf("what came is no message: %s", why)
}
