/* What fork+exec runs: nothing. */
int main(void)
{
    return 7;
}
