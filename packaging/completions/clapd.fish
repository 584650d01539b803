# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_clapd_global_optspecs
    string join \n h/help V/version
end

function __fish_clapd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_clapd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_clapd_using_subcommand
    set -l cmd (__fish_clapd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c clapd -n "__fish_clapd_needs_command" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_needs_command" -s V -l version -d 'Print version'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "setup" -d 'Try out a microphone and a broker, and write a configuration for them'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "run" -d 'Listen and publish, as the configuration says (the daemon)'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "demo" -d 'Hear the bundled recording: scores and events, without configuration or broker'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "watch" -d 'Show live scores, and suggest thresholds that suit the room'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "ask" -d 'Ask the running daemon what any sentence would have scored in the last hours'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "score" -d 'Score recordings against texts'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "embed" -d 'Print the embeddings of recordings and texts'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "devices" -d 'List the input devices by the names that a configuration may use'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "check" -d 'Name every fault of a configuration, with its line and remedy; nothing is started'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "diary" -d 'Print the events of the past: when, how long, how loud'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "calibrate" -d 'Find out what sound pressure a microphone\'s levels stand for'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "embed-cache" -d 'Embed the texts on standard input, a JSON list, into the cache: what the daemon does beside itself'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "bench" -d 'Measure a bundle\'s speed and memory on this machine'
complete -c clapd -n "__fish_clapd_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l config -d 'The configuration to write' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l device -d 'The input device, by a name that `clapd devices` lists' -r
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l broker -d 'The broker: a host\'s name, or mqtt://USER@HOST:PORT; mqtts:// is TLS; "none": events are only logged' -r
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l password-file -d 'The file with the broker\'s password and nothing else (else: the variable CLAPD_MQTT_PASSWORD)' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l ca-file -d 'Certificate (PEM) of the authority that vouches for the broker, unless the system knows it' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand setup" -s p -l prompt -d 'A sound in words; may be given several times' -r
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l node -d 'This computer\'s part of every topic (default: the host\'s name)' -r
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l yes -d 'Ask nothing, also on a terminal: what is not given takes its default, or is an error'
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l force -d 'Replace a configuration that is there; it is kept beside the new one, as FILE.old'
complete -c clapd -n "__fish_clapd_using_subcommand setup" -l keep-going -d 'Write it also where the microphone or the broker does not pass, for one that comes later'
complete -c clapd -n "__fish_clapd_using_subcommand setup" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand run" -l config -d 'Configuration file' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand run" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand demo" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand demo" -l file -d 'Another recording' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand demo" -s p -l prompt -d 'Listen for this instead; may be given several times' -r
complete -c clapd -n "__fish_clapd_using_subcommand demo" -l speed -d 'On a terminal, how many times faster than the sound' -r
complete -c clapd -n "__fish_clapd_using_subcommand demo" -l page -d 'In a browser: round and round at its own pace behind the page, on this computer alone, until Ctrl-C'
complete -c clapd -n "__fish_clapd_using_subcommand demo" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l raw -d 'What `-` (standard input) carries where it is raw PCM: rate, format (s16, s24, s32, f32, u8, alaw, mulaw; little-endian) and channels, such as 16000:s16:1' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l config -d 'Configuration whose prompts and source are watched (default, unless there are prompts with -p)' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand watch" -s p -l prompt -d 'A sound in words, instead of a configuration; may be given several times' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l source -d 'The source of the configuration to listen to (default: its first)' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l device -d 'The input device to listen to, with -p' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l for -d 'Sound to listen to, such as 10m or 8h (default: until Ctrl-C, or the source\'s end)' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l false-alarms -d 'False alarms that each prompt may make an hour' -r
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l log -d 'Write every score to a file, .jsonl or .csv (of at most 200 MB, its older half in FILE.1)' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand watch" -l json -d 'Nothing but the suggestions, a JSON object a line'
complete -c clapd -n "__fish_clapd_using_subcommand watch" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l source -d 'The source\'s id; all of them without it' -r
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l hours -d 'So many hours back' -r
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l from -d 'Local time, such as "2026-11-22 19:00"; without it as far back as there is anything' -r
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l to -d 'Local time; without it until now' -r
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l config -d 'The daemon\'s configuration file, which says where it listens' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand ask" -l json -d 'The daemon\'s answer as JSON, a line a source: every window\'s score, times in milliseconds since 1970'
complete -c clapd -n "__fish_clapd_using_subcommand ask" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand score" -s p -l prompt -d 'A sound in words; may be given several times' -r
complete -c clapd -n "__fish_clapd_using_subcommand score" -l like -d 'A recording of a sound, as another prompt; may be given several times, for recordings of one sound' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand score" -l raw -d 'What `-` (standard input) carries where it is raw PCM: rate, format (s16, s24, s32, f32, u8, alaw, mulaw; little-endian) and channels, such as 16000:s16:1' -r
complete -c clapd -n "__fish_clapd_using_subcommand score" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand score" -l threads -d 'Threads that the model computes with, where its kernels are clapd\'s own' -r
complete -c clapd -n "__fish_clapd_using_subcommand score" -l hop -d 'Seconds from one window to the next' -r
complete -c clapd -n "__fish_clapd_using_subcommand score" -l json -d 'A JSON object a line, for every window and prompt'
complete -c clapd -n "__fish_clapd_using_subcommand score" -l whole -d 'One score for the whole recording, as the model was trained to see a clip (first 10 s for `clap` bundles)'
complete -c clapd -n "__fish_clapd_using_subcommand score" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand embed" -l audio -d 'A recording, whole (of a longer one the first 10 s for `clap` bundles); may be given several times' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand embed" -l raw -d 'What `-` (standard input) carries where it is raw PCM: rate, format (s16, s24, s32, f32, u8, alaw, mulaw; little-endian) and channels, such as 16000:s16:1' -r
complete -c clapd -n "__fish_clapd_using_subcommand embed" -l text -d 'A text; may be given several times' -r
complete -c clapd -n "__fish_clapd_using_subcommand embed" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand embed" -l json -d 'A JSON object a line'
complete -c clapd -n "__fish_clapd_using_subcommand embed" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand devices" -l json -d 'One JSON object a line'
complete -c clapd -n "__fish_clapd_using_subcommand devices" -l all -d 'What ALSA makes of them, too: conversions, surround sound, other sound systems'
complete -c clapd -n "__fish_clapd_using_subcommand devices" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand check" -l config -d 'Configuration file' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand check" -l connect -d 'Try the broker, too: log in, and publish what the daemon would; nothing is left there'
complete -c clapd -n "__fish_clapd_using_subcommand check" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l from -d 'From when on, such as 2026-11-22 or "2026-11-22 19:00" (default: a week ago)' -r
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l to -d 'Until when (default: now)' -r
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l source -d 'Of this source alone' -r
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l prompt -d 'Of this prompt alone' -r
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l config -d 'Configuration of the daemon' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l journal -d 'The folder with the daemon\'s events.jsonl, instead of asking the configuration: a copy from another computer' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l csv -d 'A table for a spreadsheet'
complete -c clapd -n "__fish_clapd_using_subcommand diary" -l html -d 'A page for a browser or a printer'
complete -c clapd -n "__fish_clapd_using_subcommand diary" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and not __fish_seen_subcommand_from mic help" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and not __fish_seen_subcommand_from mic help" -f -a "mic" -d 'A source\'s microphone, with a sound calibrator on it'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and not __fish_seen_subcommand_from mic help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l level -d 'The calibrator\'s sound pressure level, in dB: 94 or 114, it stands on it' -r
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l hz -d 'The calibrator\'s tone, in Hz' -r
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l source -d 'The source of the configuration (default: its first)' -r
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l config -d 'Configuration that has the source' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l file -d 'A recording of the calibrator by that source, instead of the source itself' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -l write -d 'Write what was found into the configuration'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from mic" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from help" -f -a "mic" -d 'A source\'s microphone, with a sound calibrator on it'
complete -c clapd -n "__fish_clapd_using_subcommand calibrate; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clapd -n "__fish_clapd_using_subcommand embed-cache" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand embed-cache" -l threads -d 'Threads to compute with' -r
complete -c clapd -n "__fish_clapd_using_subcommand embed-cache" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand bench" -l bundle -d 'Model bundle' -r -F
complete -c clapd -n "__fish_clapd_using_subcommand bench" -l threads -d 'Threads that the model computes with, where its kernels are clapd\'s own' -r
complete -c clapd -n "__fish_clapd_using_subcommand bench" -l json -d 'One JSON object'
complete -c clapd -n "__fish_clapd_using_subcommand bench" -s h -l help -d 'Print help'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "setup" -d 'Try out a microphone and a broker, and write a configuration for them'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "run" -d 'Listen and publish, as the configuration says (the daemon)'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "demo" -d 'Hear the bundled recording: scores and events, without configuration or broker'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "watch" -d 'Show live scores, and suggest thresholds that suit the room'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "ask" -d 'Ask the running daemon what any sentence would have scored in the last hours'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "score" -d 'Score recordings against texts'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "embed" -d 'Print the embeddings of recordings and texts'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "devices" -d 'List the input devices by the names that a configuration may use'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "check" -d 'Name every fault of a configuration, with its line and remedy; nothing is started'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "diary" -d 'Print the events of the past: when, how long, how loud'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "calibrate" -d 'Find out what sound pressure a microphone\'s levels stand for'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "embed-cache" -d 'Embed the texts on standard input, a JSON list, into the cache: what the daemon does beside itself'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "bench" -d 'Measure a bundle\'s speed and memory on this machine'
complete -c clapd -n "__fish_clapd_using_subcommand help; and not __fish_seen_subcommand_from setup run demo watch ask score embed devices check diary calibrate embed-cache bench help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c clapd -n "__fish_clapd_using_subcommand help; and __fish_seen_subcommand_from calibrate" -f -a "mic" -d 'A source\'s microphone, with a sound calibrator on it'
