package wire

// Role is one of the two ends of a connection.
type Role string

// The ends.
const (
	Client Role = "client"
	Server Role = "server"
)

// State is how far the two ends have come.
//
//	client    New --SESSION sent--> Greeted --SESSIONACK received--> Open
//	server    New --SESSION received--> Greeted --SESSIONACK sent--> Open
type State string

// The states.
const (
	New     State = "new"
	Greeted State = "greeted"
	Open    State = "open"
)

var (
	clientLater = []string{
		"SUBSCRIBE", "UNSUBSCRIBE", "PUBLISH", "NOTIFY", "ROLLBACK", "REQUEST", "RESPONSE", "PEER",
	}
	serverLater = []string{
		"MESSAGE", "NOTIFY", "ROLLBACK", "REQUEST", "RESPONSE", "ERROR", "PEER",
	}
	// sends has, by role and state, the state that a message of that end leads to. A client need
	// not wait for the acknowledgement with what it sends, as messages are taken in order.
	sends = map[Role]map[State]map[string]State{
		Client: {
			New:     {"SESSION": Greeted},
			Greeted: all(clientLater, Greeted),
			Open:    all(clientLater, Open),
		},
		Server: {
			New:     {"ERROR": New},
			Greeted: {"SESSIONACK": Open, "ERROR": New},
			Open:    all(serverLater, Open),
		},
	}
)

func all(commands []string, state State) map[string]State {
	made := make(map[string]State, len(commands))
	for _, command := range commands {
		made[command] = state
	}
	return made
}

func (r Role) other() Role {
	if r == Client {
		return Server
	}
	return Client
}

// Connection is one end of a connection. It is told of every message that is sent and received,
// says whether it may be, and knows which requests are still to be answered. It is not safe for
// concurrent use.
type Connection struct {
	role     Role
	state    State
	asked    map[uint64]string
	wasAsked map[uint64]string
}

// NewConnection is an end of a new connection.
func NewConnection(role Role) *Connection {
	return &Connection{role, New, map[uint64]string{}, map[uint64]string{}}
}

// State is how far the two ends have come.
func (c *Connection) State() State { return c.state }

// Receive reads a message from the other end. The error is an *Error.
func (c *Connection) Receive(text []byte) (Message, error) {
	message, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if err := c.pass(message, c.role.other(), c.wasAsked, c.asked); err != nil {
		return nil, err
	}
	return message, nil
}

// Send gives the text of a message to the other end. The error is an *Error.
func (c *Connection) Send(message Message) ([]byte, error) {
	if err := c.pass(message, c.role, c.asked, c.wasAsked); err != nil {
		return nil, err
	}
	return message.Text(), nil
}

// pass lets a message of an end through. Its requests are in asked, those that it is to answer in
// wasAsked.
func (c *Connection) pass(message Message, from Role, asked, wasAsked map[uint64]string) error {
	state, may := sends[from][c.state][message.Command()]
	if !may {
		return notUnderstood("%s: not from a %s in state %s", message.Command(), from, c.state)
	}
	switch message := message.(type) {
	case *Request:
		if _, open := asked[message.SeqNo]; open {
			return notUnderstood("REQUEST %d: the one before of that number has no answer yet",
				message.SeqNo)
		}
		asked[message.SeqNo] = message.Type
	case *Response:
		if wasAsked[message.SeqNo] != message.Type {
			return notUnderstood("RESPONSE %d %s: nothing like that was asked, or it is answered",
				message.SeqNo, message.Type)
		}
		delete(wasAsked, message.SeqNo)
	}
	c.state = state
	return nil
}
