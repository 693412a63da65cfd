#!/usr/bin/perl
# Answers as Docker's engine does, as far as tcpgw asks: one container with a label. Its socket is root's and the group's docker, as
# that of the engine.
#
#   engine.pl SOCKET ADDRESS
use strict;
use warnings;
use IO::Socket::UNIX;

my ($path, $address) = @ARGV;
my $container = '{"Id": "' . '1' x 64 . '", "Names": ["/shop-1"], "Created": 1700000000, "State": "running", "Status": "Up 3 seconds",
    "Labels": {"tcpgw.port": "20005", "tcpgw.target": "3000"}, "HostConfig": {"NetworkMode": "web"},
    "NetworkSettings": {"Networks": {"web": {"NetworkID": "n1", "IPAddress": "' . $address . '", "GlobalIPv6Address": ""}}}}';
my %answers = (
    '/version' => '{"ApiVersion": "1.41", "MinAPIVersion": "1.12"}',
    '/networks' => '[{"Id": "n1", "Name": "web", "Driver": "bridge"}]',
    '/containers/json' => "[$container]",
);
unlink $path;
umask 0117;
my $listener = IO::Socket::UNIX->new(Local => $path, Listen => 16) or die "$path: $!";
chown 0, scalar getgrnam('docker'), $path or die "$path: $!";
$SIG{CHLD} = 'IGNORE';
while (my $client = $listener->accept) {
    next if fork;
    $client->autoflush(1);
    my ($asked) = (<$client> // '') =~ m{^GET (?:/v[0-9.]+)?(/[^? ]*)};
    while (my $line = <$client>) { last if $line eq "\r\n" }
    if ($asked eq '/events') {
        print $client "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        sleep 600;
        exit;
    }
    my $body = $answers{$asked} // '{"Config": {"ExposedPorts": {"3000/tcp": {}}}, "State": {}}';
    print $client "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: " . length($body) . "\r\n\r\n$body";
    exit;
}
