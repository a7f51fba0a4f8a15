# Makes one mutant: `perl mutate.pl MUTANT` in the copy of the tree. `perl mutate.pl --check MUTANT` only looks whether it can be made.
#
# A mutant file says what the bug is, and then, once or more: the file to change, `<<<`, the text to find, `===`, its
# replacement, `>>>`. The search ignores white space, so that reformatting does not break a mutant. The text must be in its
# file exactly once.
use strict;
use warnings;

my $check = @ARGV && $ARGV[0] eq '--check';
shift if $check;
my ($mutant) = @ARGV;
local $/;
open my $in, '<', $mutant or die "$mutant: $!\n";
my $text = <$in>;
my $edits = 0;
while ($text =~ /^(\S+)\n<<<\n(.*?)\n===\n(.*?)\n?>>>$/gms) {
    my ($path, $old, $new) = ($1, $2, $3);
    my $pattern = join '\s*', map { quotemeta } grep { /\S/ } split //, $old;
    open my $source, '<', $path or die "$path: $!\n";
    my $code = <$source>;
    my $found = () = $code =~ /$pattern/g;
    $found == 1 or die "$path: found $found times: $old\n";
    $edits++;
    next if $check;
    $code =~ s/$pattern/$new/;
    open my $out, '>', $path or die "$path: $!\n";
    print $out $code;
    close $out or die "$path: $!\n";
}
$edits > 0 or die "$mutant: changes nothing\n";
