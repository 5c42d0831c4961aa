// Drives the OpenTDF Go SDK for our tests: one operation a run, what went wrong on stderr.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opentdf/platform/lib/ocrypto"
	"github.com/opentdf/platform/sdk"
	"golang.org/x/oauth2"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

type attributes []string

func (a *attributes) String() string { return strings.Join(*a, ",") }

func (a *attributes) Set(value string) error {
	*a = append(*a, value)
	return nil
}

type options struct {
	server, issuer           string
	clientID, clientSecret   string
	in, out                  string
	attributes               attributes
	algorithm, session, mode string
	dpop                     string
	metadata                 string
	assertion                bool
	auto, anyKas             bool
	concurrent, count        int
	seconds                  float64
	segment                  int64
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("driver", flag.ContinueOnError)
	flags.StringVar(&o.server, "server", "", "address of the platform")
	flags.StringVar(&o.issuer, "issuer", "", "address of the token issuer, for --dpop off")
	flags.StringVar(&o.clientID, "client-id", "", "")
	flags.StringVar(&o.clientSecret, "client-secret", "", "")
	flags.StringVar(&o.in, "in", "", "the input; several, with commas, for bulk-decrypt")
	flags.StringVar(&o.out, "out", "", "the output; several likewise")
	flags.Var(&o.attributes, "attr", "what the file asks, as an FQN; may be repeated")
	flags.StringVar(&o.algorithm, "algorithm", "", "of the key that wraps, such as ec:secp256r1")
	flags.StringVar(&o.session, "session", "rsa:2048", "of the key that the answer is sealed to")
	flags.StringVar(&o.mode, "target", "", "schema version to write, such as 4.2.2")
	flags.StringVar(&o.dpop, "dpop", "on", "on, off, or an algorithm such as RS256")
	flags.StringVar(&o.metadata, "metadata", "", "encrypted metadata to write")
	flags.BoolVar(&o.assertion, "assertion", false, "write an assertion")
	flags.BoolVar(&o.auto, "auto", false, "let attributes and the base key choose KAS and algorithm")
	flags.BoolVar(&o.anyKas, "any-kas", false, "ask whatever KAS the file names")
	flags.IntVar(&o.concurrent, "concurrent", 1, "callers at once, for bench")
	flags.IntVar(&o.count, "count", 1, "files in a request, for bench; to write, for encrypt")
	flags.Float64Var(&o.seconds, "seconds", 3, "how long a bench lasts")
	flags.Int64Var(&o.segment, "segment", 0, "segment size; the SDK's own when 0")
	err := flags.Parse(arguments)
	return o, err
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	operations := map[string]func(context.Context, options) error{
		"encrypt": encrypt, "decrypt": decrypt, "bulk-decrypt": bulkDecrypt, "bench": bench,
		"time": timed, "healthy": healthy,
	}
	if len(os.Args) < 2 || operations[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: driver encrypt|decrypt|bulk-decrypt|bench|time|healthy OPTIONS")
		os.Exit(exitUsage)
	}
	o, err := parse(os.Args[2:])
	if err != nil {
		os.Exit(exitUsage)
	}
	err = operations[os.Args[1]](context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitFailed)
	}
}

func connect(ctx context.Context, o options) (*sdk.SDK, error) {
	given := []sdk.Option{}
	if strings.HasPrefix(o.server, "http://") {
		given = append(given, sdk.WithInsecurePlaintextConn())
	}
	switch o.dpop {
	case "off":
		token, err := bearer(ctx, o)
		if err != nil {
			return nil, err
		}
		given = append(given, sdk.WithOAuthAccessTokenSource(oauth2.StaticTokenSource(token)))
	case "on":
		given = append(given, sdk.WithClientCredentials(o.clientID, o.clientSecret, nil))
	default:
		given = append(given,
			sdk.WithClientCredentials(o.clientID, o.clientSecret, nil),
			sdk.WithDPoPAlgorithm(sdk.SigningAlgorithm(o.dpop)))
	}
	return sdk.New(o.server, given...)
}

// bearer fetches a token that is bound to no key.
func bearer(ctx context.Context, o options) (*oauth2.Token, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {o.clientID}, "client_secret": {o.clientSecret},
	}
	request, err := http.NewRequestWithContext(
		ctx, http.MethodPost, o.issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answered %s", response.Status)
	}
	var given struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&given); err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: given.AccessToken, TokenType: "Bearer"}, nil
}

func writing(o options) ([]sdk.TDFOption, error) {
	given := []sdk.TDFOption{sdk.WithDataAttributes(o.attributes...), sdk.WithAutoconfigure(o.auto)}
	if !o.auto {
		kas := sdk.KASInfo{URL: o.server, Default: true, Algorithm: o.algorithm}
		given = append(given, sdk.WithKasInformation(kas))
	}
	if o.algorithm != "" {
		given = append(given, sdk.WithWrappingKeyAlg(ocrypto.KeyType(o.algorithm)))
	}
	if o.mode != "" {
		given = append(given, sdk.WithTargetMode(o.mode))
	}
	if o.metadata != "" {
		given = append(given, sdk.WithMetaData(o.metadata))
	}
	if o.segment != 0 {
		given = append(given, sdk.WithSegmentSize(o.segment))
	}
	if o.assertion {
		given = append(given, sdk.WithSystemMetadataAssertion())
	}
	return given, nil
}

func reading(o options) []sdk.TDFReaderOption {
	given := []sdk.TDFReaderOption{}
	if o.session != "rsa:2048" {
		given = append(given, sdk.WithSessionKeyType(ocrypto.KeyType(o.session)))
	}
	if o.anyKas {
		given = append(given, sdk.WithIgnoreAllowlist(true))
	}
	return given
}

func encrypt(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.count == 1 {
		return seal(ctx, client, o)
	}
	for number := range o.count {
		each := o
		each.out = fmt.Sprintf("%s.%d", o.out, number)
		if err := seal(ctx, client, each); err != nil {
			return err
		}
	}
	return nil
}

func seal(ctx context.Context, client *sdk.SDK, o options) error {
	given, err := writing(o)
	if err != nil {
		return err
	}
	source, err := os.Open(o.in)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(o.out)
	if err != nil {
		return err
	}
	if _, err := client.CreateTDFContext(ctx, target, source, given...); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

func decrypt(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	return open(ctx, client, o)
}

func open(ctx context.Context, client *sdk.SDK, o options) error {
	source, err := os.Open(o.in)
	if err != nil {
		return err
	}
	defer source.Close()
	reader, err := client.LoadTDF(source, reading(o)...)
	if err != nil {
		return err
	}
	if err := reader.Init(ctx); err != nil {
		return err
	}
	if o.metadata != "" {
		found, err := reader.UnencryptedMetadata()
		if err != nil {
			return err
		}
		if string(found) != o.metadata {
			return fmt.Errorf("metadata is %q", found)
		}
	}
	target, err := os.Create(o.out)
	if err != nil {
		return err
	}
	if _, err := reader.WriteTo(target); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

func bulkDecrypt(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	sources, targets := strings.Split(o.in, ","), strings.Split(o.out, ",")
	if len(sources) != len(targets) {
		return errors.New("as many --out as --in")
	}
	files := make([]*sdk.BulkTDF, len(sources))
	for i, name := range sources {
		source, err := os.Open(name)
		if err != nil {
			return err
		}
		defer source.Close()
		target, err := os.Create(targets[i])
		if err != nil {
			return err
		}
		defer target.Close()
		files[i] = &sdk.BulkTDF{Reader: source, Writer: target}
	}
	err = client.BulkDecrypt(ctx, sdk.WithTDFs(files...), sdk.WithTDFType(sdk.Standard),
		sdk.WithTDF3DecryptOptions(reading(o)...))
	for i, file := range files {
		if file.Error != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", sources[i], file.Error)
		}
	}
	return err
}

// bench seals --count files of a few bytes, opens them again and again, and prints JSON.
func bench(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	given, err := writing(o)
	if err != nil {
		return err
	}
	sealed := make([]string, o.count)
	for i := range sealed {
		var target strings.Builder
		if _, err := client.CreateTDFContext(ctx, &target, strings.NewReader("bench"), given...); err != nil {
			return err
		}
		sealed[i] = target.String()
	}
	once := func() error { return openOne(ctx, client, sealed[0], o) }
	if o.count > 1 {
		once = func() error { return openMany(ctx, client, sealed, o) }
	}
	if err := once(); err != nil { // keys and tokens are fetched, and it works at all
		return err
	}
	return report(o, once)
}

func openOne(ctx context.Context, client *sdk.SDK, sealed string, o options) error {
	given := append(reading(o), sdk.WithKasAllowlist([]string{o.server}))
	reader, err := client.LoadTDF(strings.NewReader(sealed), given...)
	if err != nil {
		return err
	}
	return reader.Init(ctx)
}

// openMany asks for all in an order of its own: the same request again, within a second and with the
// SDK's one key for answers, would be a repetition, which is answered without a new record.
func openMany(ctx context.Context, client *sdk.SDK, sealed []string, o options) error {
	files := make([]*sdk.BulkTDF, len(sealed))
	for i, place := range rand.Perm(len(sealed)) {
		files[i] = &sdk.BulkTDF{Reader: strings.NewReader(sealed[place]), Writer: io.Discard}
	}
	given := append(reading(o), sdk.WithKasAllowlist([]string{o.server}))
	return client.BulkDecrypt(ctx, sdk.WithTDFs(files...), sdk.WithTDFType(sdk.Standard),
		sdk.WithBulkKasAllowlist([]string{o.server}), sdk.WithTDF3DecryptOptions(given...))
}

func report(o options, once func() error) error {
	var failed atomic.Int64
	var first atomic.Pointer[error]
	latencies := make([][]float64, o.concurrent)
	began := time.Now()
	until := began.Add(time.Duration(o.seconds * float64(time.Second)))
	var group sync.WaitGroup
	for caller := range o.concurrent {
		group.Go(func() {
			for time.Now().Before(until) {
				start := time.Now()
				if err := once(); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
					return
				}
				latencies[caller] = append(latencies[caller], time.Since(start).Seconds())
			}
		})
	}
	group.Wait()
	took := time.Since(began).Seconds()
	if found := first.Load(); found != nil {
		return fmt.Errorf("%d callers gave up: %w", failed.Load(), *found)
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"per_second": float64(len(all)*o.count) / took, "p50": all[len(all)/2],
		"p99": all[len(all)*99/100], "requests": float64(len(all)),
	})
}

// timed seals and opens one file in one process, and prints how long each took.
func timed(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	sealed := o
	sealed.out = o.out + ".tdf"
	start := time.Now()
	if err := seal(ctx, client, sealed); err != nil {
		return err
	}
	sealing := time.Since(start).Seconds()
	opened := o
	opened.in = sealed.out
	start = time.Now()
	if err := open(ctx, client, opened); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(
		map[string]float64{"seal": sealing, "open": time.Since(start).Seconds()})
}

func healthy(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	well, err := client.IsHealthy(ctx)
	if err == nil && !well {
		err = errors.New("not healthy")
	}
	return err
}
